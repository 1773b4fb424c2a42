"""The OpenAPI document, with what this deployment has: addresses, kinds of job, and the most that a job may ask for."""

import json
from functools import lru_cache
from importlib.resources import files
from typing import Any

from flask import Request

from knative_jobs.runtime.settings import settings
from knative_jobs.web import links

_DOCUMENT = json.loads(files("knative_jobs.web").joinpath("openapi.json").read_bytes())


def document(request: Request) -> str:
    """Return the document for the client that asks: a client made from it calls each route where that is."""
    return _document(tuple(links.to(request, path).removesuffix(path) for path in _DOCUMENT["paths"]))


@lru_cache(maxsize=16)
def _document(addresses: tuple[str, ...]) -> str:
    """Return the document with the address of each path, in their order. One that all have is that of the document."""
    made = _DOCUMENT | {"servers": [{"url": addresses[0] or "/"}]}
    components = made["components"]
    own: dict[str, dict[str, Any]] = {
        "Kind": {"enum": settings().job_kinds},
        "MaxAttempts": {"maximum": settings().job_max_attempts},
        "Retention": {"maximum": settings().job_retention_seconds},
    }
    schemas = {name: schema | own.get(name, {}) for name, schema in components["schemas"].items()}
    made["components"] = components | {"schemas": schemas}
    if len(set(addresses)) > 1:
        paths = zip(_DOCUMENT["paths"].items(), addresses, strict=True)
        made["paths"] = {path: {"servers": [{"url": address}], **item} for (path, item), address in paths}
    return json.dumps(made, ensure_ascii=False)
