"""The log: one JSON object a line in a cluster, plain text elsewhere."""

import json
import logging

from knative_jobs.settings import settings


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
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure() -> None:
    """Send this project's log to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Json() if settings().k_service else Plain())
    log = logging.getLogger("knative_jobs")
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO)
    log.propagate = False


def _printable(text: str) -> str:
    """Return the text with line breaks and other control characters spelled out."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
