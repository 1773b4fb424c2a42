"""The log: one JSON object a line in a cluster, plain text elsewhere."""

import json
import logging
from typing import Any

from knative_jobs.runtime.settings import settings

_LEVELS = {
    "knative_jobs": logging.INFO,
    "_granian": logging.WARNING,  # the server
    "opentelemetry": logging.ERROR,  # it warns of every repetition
}

_ABOUT = ("job_id", "attempt", "trace_id", "span_id")


def about(job_id: str = "", attempt: int = 0, traceparent: str = "") -> dict[str, Any]:
    """Return the `extra` of a record in the log: what the JSON has beside the message, as far as it is known."""
    return dict(zip(_ABOUT, (job_id, attempt, traceparent[3:35], traceparent[36:52]), strict=True))


class Plain(logging.Formatter):
    """One line a record, and what belongs to it indented, whatever is in the values: none looks like another record."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line, then those of its exception."""
        lines = [f"{record.levelname} {_printable(record.getMessage())}"]
        if record.exc_info:
            lines += [f"    {_printable(line)}" for line in self.formatException(record.exc_info).split("\n")]
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
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure() -> None:
    """Send this project's log to standard error, and in the same form that of the libraries which have one."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Json() if settings().k_service else Plain())
    for name, level in _LEVELS.items():
        log = logging.getLogger(name)
        log.handlers[:] = [handler]
        log.setLevel(level)
        log.propagate = False


def _printable(text: str) -> str:
    """Return the text with line breaks and other control characters spelled out."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
