"""The application of one function, for granian.

The Service's name says which function that is: K_SERVICE `jobs-status` is `jobs_status` in `functions/jobs_status.py`.
FUNCTION_TARGET and FUNCTION_SOURCE, the variables of functions-framework, say it where they are set.

The function is loaded at once: one that cannot start says so, and the first request does not wait.
"""

import gc
import signal
import sys
from pathlib import Path
from typing import Any

gc.disable()  # until all is loaded: nothing of it is garbage, and looking for some is a tenth of a cold start

# granian forks this process with a handler that tells the parent to stop: a SIGTERM that comes while the function is
# being loaded would be lost.
signal.signal(signal.SIGTERM, signal.SIG_DFL)

from flask import Request, Response  # noqa: E402
from functions_framework import create_app  # noqa: E402

from knative_jobs.runtime import logs  # noqa: E402
from knative_jobs.runtime.settings import InvalidSettingError, settings  # noqa: E402
from knative_jobs.server.asgi import Application  # noqa: E402

FUNCTIONS = Path(__file__).resolve().parents[2]


def _named() -> tuple[str, str]:
    """Return the function's name and its file."""
    target = settings().function_target or settings().k_service.replace("-", "_")
    if not target:
        raise InvalidSettingError("FUNCTION_TARGET must name the function to serve; K_SERVICE is not set either")
    return target, settings().function_source or str(FUNCTIONS / f"{target}.py")


logs.configure()
_function = create_app(*_named())  # type: ignore[no-untyped-call]
_handler: Any = getattr(sys.modules.get(_function.name), _function.name, None)


def _by_flask(request: Request) -> Response:
    """Have a function that is not ours called as functions-framework does it."""
    response: Response = Response.from_app(_function, request.environ, buffered=True)  # type: ignore[assignment]
    return response


# Our public functions have routes and never block. Those without routes, as the worker, may block, and any other
# function is assumed to.
_routes = getattr(_handler, "routes", None)
app = Application(_by_flask if _routes is None else _handler, blocking=not _routes)
gc.freeze()
gc.enable()
