"""Several public functions in one process, where the path of a request says which one answers it.

In a cluster each has a Service and so a host of its own, unless it is deployed with knative/components/one-endpoint. On
one machine all of them are one process.
"""

import json
import sys
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path

import functions_framework
from flask import Request, Response

from knative_jobs.web import links
from knative_jobs.web.answers import no_such_route
from knative_jobs.web.endpoint import HEALTH, Handler

FUNCTIONS = Path(__file__).resolve().parents[2]


def public() -> list[Path]:
    """Return the files of the public functions.

    These are the ones that the API description has paths of: `/jobs_status` is in `functions/jobs_status.py`, and so is
    what is below a path.
    """
    described = json.loads(files("knative_jobs.web").joinpath("openapi.json").read_bytes())["paths"]
    names = {path.split("/")[1].removesuffix(".json") for path in described}
    return [file for name in sorted(names) if (file := FUNCTIONS / f"{name}.py").exists()]


def load(sources: Iterable[Path]) -> dict[str, Handler]:
    """Return, for each path, the function that answers it. Each function is named as its file."""
    handlers: dict[str, Handler] = {}
    for source in sources:
        functions_framework.create_app(source.stem, str(source))  # type: ignore[no-untyped-call]
        handler: Handler = getattr(sys.modules[source.stem], source.stem)
        handlers |= dict.fromkeys((*handler.routes, *handler.pages), handler)
    return handlers


def find(request: Request, handlers: Mapping[str, Handler]) -> Handler | None:
    """Return the function that answers a request; None: there is none.

    On its own host each function answers at `/`. Here, a browser that opens `/` gets the dashboard, and a job that is
    posted there is submitted.
    """
    path = "/jobs" if request.path == "/" and request.method == "POST" else request.path
    return handlers.get(path) or handlers.get(path.rstrip("/"))


def answer(request: Request, handlers: Mapping[str, Handler]) -> Response:
    """Have the function answer that the request is for."""
    request.environ[links.ALL_HERE] = True
    if request.path in HEALTH:
        return Response()
    handler = find(request, handlers)
    return handler(request) if handler else no_such_route(request.path, handlers)
