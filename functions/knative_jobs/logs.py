"""The log: one JSON object a line in a cluster, plain text elsewhere."""

import json
import logging

from knative_jobs.settings import settings


def configure() -> None:
    """Send this project's log to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Json() if settings().k_service else logging.Formatter("%(levelname)s %(message)s"))
    log = logging.getLogger("knative_jobs")
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO)
    log.propagate = False


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
