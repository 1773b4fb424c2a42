"""Work that an HTTP service does: the worker posts the job to it, and the response says how the attempt ended.

docs/work.md states the request, and what each response means.
"""

import email.utils
import http.client
import json
import queue
import socket
import ssl
import threading
import time
from contextlib import closing, suppress
from functools import cache
from typing import Any

from knative_jobs.runtime import work_address
from knative_jobs.runtime.settings import settings
from knative_jobs.work.api import MAX_PROGRESS_MESSAGE, PROGRESS_SECONDS
from knative_jobs.work.messages import ABSENT, MAX_CHECKPOINT_BYTES, MAX_RESULT_BYTES, parse_json, result_text, storable

CONNECT_SECONDS = 10
"""How long the service may take to accept a connection."""
MAX_LINE_BYTES = 2 * MAX_RESULT_BYTES
"""The longest line of a response that is a stream of lines."""
MAX_QUOTED = 500
"""So much of a response that says what went wrong is kept in the job's error."""
NDJSON = "application/x-ndjson"
_TOO_MANY, _UNAVAILABLE = 429, 503


class HttpExchange:
    """One job that a service does. To an attempt it is what a work process is, see `launcher.WorkProcess`."""

    def __init__(self) -> None:
        """Begin nothing yet."""
        self._messages: queue.SimpleQueue[list[Any]] = queue.SimpleQueue()
        self._socket: socket.socket | None = None
        self._is_over = False

    def attribute(self, *attempt: Any) -> None:
        """Do nothing: a service prints nothing here."""

    def send(self, word: str, job_id: str, attempt: int, *job: Any) -> None:
        """Post the job, or close the connection of one that is to be cancelled. No service hears of anything else."""
        if word == "work":
            call = threading.Thread(target=self._call, args=(job_id, attempt, *job), daemon=True)
            call.start()
        elif word == "cancel":
            self._messages.put(["cancelled", job_id, attempt])
            self.end()

    def receive(self, until: float) -> list[Any] | None:
        """Wait for the next message of `work.messages`; None once `time.monotonic()` is as late as `until`."""
        try:
            return self._messages.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            return None

    def release(self) -> None:
        """Do nothing: the next job has an exchange of its own."""

    def end(self, patience_s: float = 0) -> str:
        """Close the connection."""
        self._is_over = True
        if self._socket:
            with suppress(OSError):  # the service has closed it
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)  # below TLS: it wakes the thread that reads
        return "connection closed"

    def _call(self, job_id: str, attempt: int, *job: Any) -> None:
        """Have the service do the job, and tell what comes of it."""
        try:
            word, details = self._post(job_id, attempt, *job)
        except Exception as error:
            word, details = "error", [_error(type(error).__name__, str(error)), None]
        self._messages.put([word, job_id, attempt, *details])

    def _post(
        self,
        job_id: str,
        attempt: int,
        kind: str,
        start: str,
        end: str,
        numbers: str,
        given: str,
        traceparent: str,
        checkpoint: str,
        seconds: float,
    ) -> tuple[str, list[Any]]:
        to = work_address.parse(settings().job_work)
        fields = {"id": json.dumps(job_id), "kind": json.dumps(kind), "attempt": str(attempt)}
        if numbers != ABSENT:
            fields |= {"start": start if "start" in numbers else json.dumps(start)}
            fields |= {"end": end if "end" in numbers else json.dumps(end)}
        fields |= {"time-left": f"{seconds:.15g}"}
        fields |= {name: text for name, text in (("input", given), ("checkpoint", checkpoint)) if text}
        members = (f'"{name}":{value}' for name, value in fields.items())
        body = f"{{{','.join(members)}}}"
        headers = {
            "Content-Type": "application/json",
            "Accept": f"application/json, {NDJSON}",
            "Idempotency-Key": f"{job_id}.{attempt}",
            **({"traceparent": traceparent} if traceparent else {}),
            **({"Authorization": to.authorization} if to.authorization else {}),
        }
        with closing(_connection(to)) as connection:
            connection.connect()
            self._socket = connection.sock
            self._socket.settimeout(None)  # the attempt has a time limit of its own
            if self._is_over:
                raise ConnectionAbortedError("the attempt ended before the job was posted")
            connection.request("POST", to.target, body.encode(), headers)
            with connection.getresponse() as response:
                return self._outcome(response, job_id, attempt)

    def _outcome(self, response: http.client.HTTPResponse, job_id: str, attempt: int) -> tuple[str, list[Any]]:
        """Return how the attempt ended, in the words of `work.messages`."""
        status = response.status
        if 200 <= status < 300:
            if response.headers.get_content_type() == NDJSON:
                return self._outcome_of_lines(response, job_id, attempt)
            body = response.read(MAX_RESULT_BYTES + 1)
            if len(body) > MAX_RESULT_BYTES:
                return _failed(f"the result has over {MAX_RESULT_BYTES} bytes")
            if response.length:  # what Content-Length says is still to come
                raise http.client.IncompleteRead(body, response.length)
            return _result_of(body) if body else ("complete", ["null"])
        quoted = response.read(MAX_QUOTED).decode(errors="replace")
        error = _error("HttpStatus", f"the service answered {status} {response.reason}: {quoted}".strip(": "))
        if status in (_TOO_MANY, _UNAVAILABLE):
            return "error", [error, _seconds(response.headers.get("Retry-After", ""))]
        return ("failed", [error]) if 400 <= status < 500 else ("error", [error, None])

    def _outcome_of_lines(self, response: http.client.HTTPResponse, job_id: str, attempt: int) -> tuple[str, list[Any]]:
        """Tell the progress and checkpoints in the lines, until one of them says how the attempt ended."""
        told_at = float("-inf")
        while line := response.readline(MAX_LINE_BYTES + 1):
            if not line.strip():
                continue
            try:
                said = parse_json(line.decode())
            except (ValueError, RecursionError):
                said = None
            match said:
                case {"result": result}:
                    return _complete(result)
                case {"error": {"type": str(name), "message": str(message)}, **more}:
                    return "error", [_error(name, message), _seconds(str(more.get("retry-after", "")))]
                case {"failed": {"type": str(name), "message": str(message)}}:
                    return "failed", [_error(name, message)]
                case {"checkpoint": value}:
                    try:
                        text = result_text(value, MAX_CHECKPOINT_BYTES)
                    except (ValueError, RecursionError) as error:
                        return _failed(f"the checkpoint cannot be stored: {error}")
                    self._messages.put(["checkpoint", job_id, attempt, text])
                case {"continue": True}:
                    return "continue", []
                case {"progress": int() | float() as fraction, **more} if not isinstance(fraction, bool):
                    if time.monotonic() - told_at >= PROGRESS_SECONDS or fraction >= 1:
                        told_at = time.monotonic()
                        text = storable(str(more.get("message", ""))[:MAX_PROGRESS_MESSAGE])
                        self._messages.put(["progress", job_id, attempt, min(1.0, max(0.0, float(fraction))), text])
                case _:
                    quoted = line[:MAX_QUOTED].decode(errors="replace").strip()
                    return "error", [_error("BadResponse", f"a line is not one that docs/work.md has: {quoted}"), None]
        return "error", [_error("BadResponse", "the response ended without a result"), None]


def _connection(to: work_address.WorkAddress) -> http.client.HTTPConnection:
    if to.tls:
        return http.client.HTTPSConnection(to.host, to.port, timeout=CONNECT_SECONDS, context=_tls())
    return http.client.HTTPConnection(to.host, to.port, timeout=CONNECT_SECONDS)


@cache
def _tls() -> ssl.SSLContext:
    """Return what trusts the system's authorities, or those of SSL_CERT_FILE."""
    return ssl.create_default_context()


def _result_of(body: bytes) -> tuple[str, list[Any]]:
    try:
        result = parse_json(body.decode(json.detect_encoding(body)))
    except (ValueError, RecursionError) as error:
        return _failed(f"the result is not JSON: {error}")
    return _complete(result)


def _complete(result: Any) -> tuple[str, list[Any]]:
    try:
        return "complete", [result_text(result)]
    except (ValueError, RecursionError) as error:
        return _failed(f"the result cannot be stored: {error}")


def _failed(message: str) -> tuple[str, list[Any]]:
    return "failed", [_error("BadResponse", message)]


def _error(name: str, message: str) -> dict[str, str]:
    return {"type": storable(name), "message": storable(message)}


def _seconds(retry_after: str) -> float | None:
    """Return the seconds of a Retry-After: https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3. None: it has none."""
    with suppress(ValueError):
        seconds = float(retry_after)
        return seconds if 0 <= seconds < float("inf") else None
    with suppress(ValueError, TypeError, OverflowError):
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    return None
