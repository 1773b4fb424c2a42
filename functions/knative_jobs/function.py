"""The application of one function, for granian: FUNCTION_TARGET in FUNCTION_SOURCE.

The function is loaded at once: one that cannot start says so, and the first request does not wait.
"""

import signal
import sys
from typing import Any

# granian forks this process with a handler that tells the parent to stop: a SIGTERM that comes while the function is
# being loaded would be lost.
signal.signal(signal.SIGTERM, signal.SIG_DFL)

from flask import Request, Response  # noqa: E402
from functions_framework import create_app  # noqa: E402

from knative_jobs import logs  # noqa: E402
from knative_jobs.rsgi import Application  # noqa: E402

logs.configure()
_function = create_app()  # type: ignore[no-untyped-call]
_handler: Any = getattr(sys.modules.get(_function.name), _function.name, None)


def _by_flask(request: Request) -> Response:
    """Have the function called as functions-framework does it."""
    response: Response = Response.from_app(_function, request.environ, buffered=True)  # type: ignore[assignment]
    return response


_is_public = bool(getattr(_handler, "routes", ()))
# The worker and the like may block, and of a function that is not ours nobody knows.
app = Application(_handler if _is_public else _by_flask, blocking=not _is_public)
