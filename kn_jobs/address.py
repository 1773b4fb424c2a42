"""Where the API is."""

import json
import os
import subprocess
from functools import cache

import click
import httpx

LOCAL = "http://localhost:5000"
NAMESPACE = "knative-jobs"
_HOW = (
    "Set KNATIVE_JOBS_URL to the address of the API; or start it on this machine; or choose a cluster that has it with "
    f"`kubectl config use-context`, and its namespace with KNATIVE_JOBS_NAMESPACE ({NAMESPACE})."
)


class AddressError(click.ClickException):
    """Nobody says where the API is."""


@cache
def base() -> str:
    """Return the address that describes the API: KNATIVE_JOBS_URL, else this machine, else the cluster of kubectl.

    Raises:
        AddressError: there is none.
    """
    if given := os.environ.get("KNATIVE_JOBS_URL", "").rstrip("/"):
        return given
    try:
        httpx.get(f"{LOCAL}/health/readiness", timeout=2).raise_for_status()
    except httpx.HTTPError:
        return _in_cluster()
    return LOCAL


def _in_cluster() -> str:
    namespace = os.environ.get("KNATIVE_JOBS_NAMESPACE", NAMESPACE)
    command = [
        "kubectl",
        "get",
        "services.serving.knative.dev",
        "openapi",
        "--namespace",
        namespace,
        "--output",
        "json",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)  # noqa: S603
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise AddressError(f"Nothing answers at {LOCAL}, and there is no cluster to ask: {error}. {_HOW}") from error
    if done.returncode:
        raise AddressError(f"Nothing answers at {LOCAL}, and kubectl says: {done.stderr.strip()}. {_HOW}")
    url = json.loads(done.stdout).get("status", {}).get("url")
    if not url:
        raise AddressError(f"The Service openapi in the namespace {namespace} has no address yet.")
    return str(url)


def routes(document: dict[str, object], described_at: str) -> dict[str, str]:
    """Return the address of each path of an OpenAPI document: in a cluster, each Service has a host of its own."""
    servers, paths = document["servers"], document["paths"]
    found = {}
    for path, item in paths.items():  # type: ignore[attr-defined]
        [server] = item.get("servers", servers)
        found[path] = str(httpx.URL(described_at).join(server["url"])).rstrip("/") + path
    return found
