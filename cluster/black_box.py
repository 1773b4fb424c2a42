"""The black box suite, tests/e2e, against a deployment."""

# ruff: noqa: S606
import os
import sys

from cluster import NAMESPACE, ROOT, kind
from cluster.shell import run


def test(context: str, more: list[str]) -> None:
    """Become pytest, with these arguments more. It asks the ingress of the cluster, as the hosts of the Services."""
    services = ("kubectl", "--context", context, "-n", NAMESPACE, "get", "ksvc")
    url = run(*services, "jobs", "-o", "jsonpath={.status.url}")
    print(f"Testing {url} in {context}", flush=True)
    _, _, host = url.partition("://")
    where = ["--domain", host.partition(".")[2]]
    if not run(*services, "jobs-status", "--ignore-not-found", "-o", "name"):
        where = ["--host", host]  # components/one-endpoint
    address = [] if "--gateway" in more else ["--gateway", _gateway(context), *where]
    program = str(ROOT / "scripts" / "test")
    os.execv(program, [program, "tests/e2e", "-m", "", *address, *more])


def _gateway(context: str) -> str:
    if context == kind.CONTEXT:
        return kind.gateway()
    where = ("kubectl", "--context", context, "-n", "kourier-system", "get", "service", "kourier")
    host = run(*where, "-o", "jsonpath={.status.loadBalancer.ingress[0]['ip','hostname']}", may_fail=True)
    return f"http://{host}" if host else sys.exit("No Kourier here: ./scripts/kind test --gateway URL --domain DOMAIN")
