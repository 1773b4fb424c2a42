"""The WSGI application of one function: FUNCTION_TARGET in FUNCTION_SOURCE, for granian.

`functions_framework.app` would load the function with the first request; here a function that cannot start says so at
once, and the first request does not wait.
"""

import signal

# granian forks this process with a handler that tells the parent to stop: a SIGTERM that comes while the function is
# being loaded would be lost.
signal.signal(signal.SIGTERM, signal.SIG_DFL)

from functions_framework import create_app  # noqa: E402

from knative_jobs import logs  # noqa: E402

logs.configure()
app = create_app()  # type: ignore[no-untyped-call]
