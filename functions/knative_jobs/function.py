"""The application of one function, for granian: FUNCTION_TARGET in FUNCTION_SOURCE.

The function is loaded at once: one that cannot start says so, and the first request does not wait.
"""

import signal
import sys

# granian forks this process with a handler that tells the parent to stop: a SIGTERM that comes while the function is
# being loaded would be lost.
signal.signal(signal.SIGTERM, signal.SIG_DFL)

from functions_framework import create_app  # noqa: E402

from knative_jobs import logs  # noqa: E402
from knative_jobs.rsgi import Application  # noqa: E402

logs.configure()
_function = create_app()  # type: ignore[no-untyped-call]
# Ours that are public never block. Of any other, a user's own among them, nobody knows.
_handler = getattr(sys.modules.get(_function.name), _function.name, None)
app = Application(_function, blocking=not getattr(_handler, "routes", ()))
