"""The kinds of the jobs: one job at a time in a worker, several at once, and work that a service does."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import inf
from pathlib import Path

from chaos import ROOT
from chaos.system import HOST
from chaos.work import work
from knative_jobs import Cancelled, Continue, Fail, Job, Retry
from knative_jobs.work.http_service import NDJSON

SEVERAL, SERVICE = "several", "service"
ALL = {"default": "", SEVERAL: f".{SEVERAL}", SERVICE: f".{SERVICE}"}
"""Each kind, and what the names of its keys in Redis end with."""
CONCURRENCY = 8


def kind_of(end: int) -> str:
    """Return the kind of the job with this `end`."""
    return list(ALL)[end % len(ALL)]


def declare(folder: Path, service: str) -> None:
    """Write the folders of the kinds.

    Args:
        folder: where to.
        service: the address of the service.
    """
    as_service = ROOT / "knative" / "worker" / "as-service"
    for kind, does in ((SEVERAL, "chaos.work:work"), (SERVICE, service)):
        own = folder / kind
        own.mkdir(parents=True)
        env = {"JOB_KIND": kind, "JOB_WORK": does, "WORKER_CONCURRENCY": CONCURRENCY}
        (own / "kind.env").write_text("".join(f"{name}={value}\n" for name, value in env.items()))
        (own / "kustomization.yaml").write_text(
            f"kind: Component\ncomponents: ['{as_service}']\nconfigMapGenerator: [{{name: kind, envs: [kind.env]}}]\n"
        )


class Service:
    """An HTTP service that does what the work function does."""

    def __init__(self) -> None:
        """Serve from now on."""
        self._server = ThreadingHTTPServer((HOST, 0), _Handler)
        self._server.daemon_threads = True
        self.address = f"http://{HOST}:{self._server.server_address[1]}/"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    """Does one job. It is the worker of the job, too: progress is a line of the response."""

    def do_POST(self) -> None:
        """Do the job, and answer as docs/work.md has it."""
        given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        kind, checkpoint = given["kind"], given.get("checkpoint")
        job = Job(
            self, given["id"], given["attempt"], given["start"], given["end"], kind=kind, checkpoint_value=checkpoint
        )
        in_lines = str(job.start).startswith(("steps", "parts"))
        if in_lines:
            self._answer(200, "Content-Type", NDJSON)
        try:
            result = work(job)
        except (Cancelled, ConnectionError):
            return
        except Continue:
            self._say({"continue": True})
        except Retry as retry:
            self._answer(503, "Retry-After", str(retry.after))
        except Fail as error:
            self._answer(422, "Content-Type", "text/plain", str(error))
        except ValueError as error:
            self._answer(500, "Content-Type", "text/plain", str(error))
        else:
            if in_lines:
                self._say({"result": result})
            else:
                self._answer(200, "Content-Type", "application/json", json.dumps(result))

    def report(self, fraction: float, message: str) -> None:
        """Say how far the job is."""
        self._say({"progress": fraction, "message": message})

    def cancel_requested(self) -> bool:
        """Say nothing of that: a cancelled job has lost its connection."""
        return False

    def keep(self, checkpoint: str) -> None:
        """Say what the next attempt can go on from."""
        self._say({"checkpoint": json.loads(checkpoint)})

    def is_stopping(self) -> bool:
        """Say nothing of that: a service goes on when a worker is stopped."""
        return False

    def time_left(self) -> float:
        """Say nothing of that either."""
        return inf

    def log_message(self, *_: object) -> None:
        """Keep it quiet."""

    def _answer(self, status: int, name: str, value: str, body: str = "") -> None:
        self.send_response(status)
        self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body.encode())

    def _say(self, line: object) -> None:
        self.wfile.write(json.dumps(line).encode() + b"\n")
        self.wfile.flush()
