"""The application of one function, for granian: FUNCTION_TARGET in FUNCTION_SOURCE.

The function is loaded at once: one that cannot start says so, and the first request does not wait.
"""

import signal

# granian forks this process with a handler that tells the parent to stop: a SIGTERM that comes while the function is
# being loaded would be lost.
signal.signal(signal.SIGTERM, signal.SIG_DFL)

from functions_framework import create_app  # noqa: E402

from knative_jobs import logs  # noqa: E402
from knative_jobs.rsgi import Application  # noqa: E402

logs.configure()
app = Application(create_app())  # type: ignore[no-untyped-call]
