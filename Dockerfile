# One image for all functions: K_SERVICE, which Knative sets, or FUNCTION_TARGET chooses which one runs.
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
WORKDIR /app
COPY requirements.txt .
RUN pip install --no-cache-dir --no-compile --root-user-action=ignore \
        --require-hashes --only-binary=:all: --target packages -r requirements.txt
COPY functions functions
COPY examples examples
# Bytecode that is not checked against its source: nothing here changes, and a cold start reads half as many files.
RUN python -m compileall -q -j 0 --invalidation-mode unchecked-hash packages functions examples

FROM ${BASE} AS function
# The official image has no bytecode of the standard library, and a read-only root takes none: without this every start
# would compile it anew.
RUN python -m pip uninstall --yes --quiet --root-user-action=ignore pip \
 && python -m compileall -q -j 0 --invalidation-mode unchecked-hash \
        "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
WORKDIR /app
COPY --from=build /app/packages packages
COPY --from=build /app/functions functions
COPY --from=build /app/examples examples
ENV PYTHONPATH=/app/functions:/app/packages PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp PORT=8080 \
    GRANIAN_INTERFACE=asgi
USER 65532:65532
# A shell only to read $PORT, which Knative sets; exec makes the server the process that gets the SIGTERM.
CMD ["sh", "-c", "exec python -m granian --no-ws --log-level warning --host 0.0.0.0 --port \"$PORT\" knative_jobs.server.app:app"]
