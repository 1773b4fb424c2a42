"""The WSGI application of one function: FUNCTION_TARGET in FUNCTION_SOURCE, for granian.

`functions_framework.app` would load the function with the first request; here a function that cannot start says so at
once, and the first request does not wait.
"""

from functions_framework import create_app

from knative_jobs import logs

logs.configure()
app = create_app()  # type: ignore[no-untyped-call]
