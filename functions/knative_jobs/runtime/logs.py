"""The log: one JSON object a line in a cluster, plain text elsewhere."""

import json
import logging
from typing import Any

from knative_jobs.runtime.settings import settings

_LEVELS = {
    "knative_jobs": logging.INFO,
    "_granian": logging.WARNING,  # the server
    "opentelemetry": logging.ERROR,  # it logs a warning for each retry
}

_ABOUT = ("job_id", "attempt", "job_kind", "trace_id", "span_id")
OUTPUT = "output"
"""The logger's name for what the work prints."""

_work = logging.getLogger("knative_jobs.work")
_tracebacks = logging.Formatter()


def about(job_id: str = "", attempt: int = 0, traceparent: str = "", kind: str = "") -> dict[str, Any]:
    """Return the `extra` of a record in the log: what the JSON has beside the message, as far as it is known."""
    return dict(zip(_ABOUT, (job_id, attempt, kind, traceparent[3:35], traceparent[36:52]), strict=True))


def said_by_work(
    message: str, *, severity: str = "INFO", logger: str = OUTPUT, at: float = 0, exception: str = "", **about: Any
) -> None:
    """Log what the user's work says: a line that it printed, or a record of its own log.

    Args:
        message: the line, or the record's message.
        severity: the name of the record's level.
        logger: the name of its logger.
        at: when, in seconds since the epoch. 0: now.
        exception: its traceback, if it has one.
        about: the attempt that says it, in the words of `about`.
    """
    made = logging.LogRecord(logger, logging.INFO, "", 0, message, None, None)
    made.__dict__ |= {"levelname": severity, "exc_text": exception, "of_work": True, **about}
    made.created = at or made.created
    _work.handle(made)


class Plain(logging.Formatter):
    """One line a record, and what belongs to it indented, whatever is in the values: none looks like another record."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line, then those of its exception. What the work says is behind its job and a bar."""
        lines = [f"{_front(record)} {_printable(record.getMessage().expandtabs())}"]
        if exception := traceback_of(record):
            lines += [f"    {_printable(line)}" for line in exception.split("\n")]
        return "\n".join(lines)


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "severity": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name in _ABOUT if (value := getattr(record, name, None))}
        if exception := traceback_of(record):
            line["exception"] = exception
        return json.dumps(line)


def traceback_of(record: logging.LogRecord) -> str:
    """Return the traceback of a record, empty when it has none."""
    return record.exc_text or (record.exc_info and _tracebacks.formatException(record.exc_info)) or ""


def configure() -> None:
    """Send this project's log to standard error, and in the same form that of the libraries which have one."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Json() if settings().k_service else Plain())
    for name, level in _LEVELS.items():
        log = logging.getLogger(name)
        log.handlers[:] = [handler]
        log.setLevel(level)
        log.propagate = False


def _front(record: logging.LogRecord) -> str:
    if not getattr(record, "of_work", False):
        return record.levelname
    job_id: str = getattr(record, "job_id", "")
    who = f"job {job_id} attempt {getattr(record, 'attempt', 0)} |" if job_id else "work |"
    return who if record.name == OUTPUT else f"{record.levelname} {who}"


def _printable(text: str) -> str:
    """Return the text with line breaks and other control characters spelled out."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
