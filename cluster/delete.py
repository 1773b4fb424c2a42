"""Taking a deployment away, in an order in which nothing has to wait for what is already gone."""

import subprocess
import sys
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import urlsplit

from cluster import NAMESPACE, OURS
from cluster.objects import Object, found
from cluster.shell import Command, run, step

FUNCTIONS = ("services.serving.knative.dev", "jobsinks.sinks.knative.dev")
THEIR_PODS = ("serving.knative.dev/service", "batch.kubernetes.io/job-name")
"""The labels that Knative and Kubernetes put on the pods of a function, and of the Jobs that a JobSink makes."""
SOURCES = ("pingsources.sources.knative.dev", "triggers.eventing.knative.dev")
"""What calls the functions by itself."""
OUR_REDIS = ("redis", "redis-nodes")
"""How the names of a Redis end that goes with the namespace: the base's, and that of components/redis-ha."""
LONGEST_SECONDS = 660
"""A request may last 600 s, and a pod that is deleted finishes what it has."""


class Held(NamedTuple):
    """What is in the namespace."""

    services: list[Object]
    """The functions: Knative Services and JobSinks."""
    volumes: list[Object]
    """The PersistentVolumeClaims."""
    secrets: list[Object]
    """The Secrets that no overlay has made."""
    redis_url: str
    """Where the jobs are."""


def delete(context: str, yes: bool) -> None:
    """Remove the deployment and its namespace; ask before, unless `yes`."""
    kubectl = ("kubectl", "--context", context)
    if not run(*kubectl, "get", "namespace", NAMESPACE, "--ignore-not-found", "-o", "name"):
        print(f"There is no namespace {NAMESPACE} in {context}, so there is nothing to remove.")
        return
    held = _held(kubectl)
    if not yes:
        _ask(question(context, held))
    here = (*kubectl, "-n", NAMESPACE)
    with step("Removing what calls the functions, then the functions"):
        # While Redis is there: a worker writes down how its job ended, or hands it back.
        _delete(here, SOURCES)
        _delete(here, (*FUNCTIONS, "jobs.batch"))
    with step("Waiting for their pods, which finish what they do"):
        for label in THEIR_PODS:
            _wait_for_pods(here, f"-l={label}")
    with step("Removing what is left"):
        _delete(here, ("deployments.apps", "statefulsets.apps", "brokers.eventing.knative.dev"))
        _wait_for_pods(here)
    # Last, when no pod is in it: Kubernetes looks again only after half of the longest grace period of those it finds.
    with step(f"Removing the namespace {NAMESPACE}"):
        run(*kubectl, "delete", "namespace", NAMESPACE, "--timeout=3m", may_fail=True)
        state = "jsonpath={range .status.conditions[?(@.status=='True')]}{.message}{'\\n'}{end}"
        if run(*kubectl, "get", "namespace", NAMESPACE, "--ignore-not-found", "-o", "name"):
            sys.exit(f"It is not gone yet:\n{run(*kubectl, 'get', 'namespace', NAMESPACE, '-o', state)}")
    print(*remains(held, found(kubectl, "persistentvolumes")), sep="\n")


def question(context: str, held: Held) -> str:
    """Return what to ask before all of this is removed."""
    lines = [f"This removes from {context} the namespace {NAMESPACE} and all that is in it:"]
    lines.append(f"- {len(held.services)} functions: {_names(held.services)}")
    if held.volumes:
        lines.append(f"- the data, for good: every job in the volume of {_names(held.volumes)}")
    if held.secrets:
        lines.append(f"- the Secrets {_names(held.secrets)}, which were made by hand")
    return "\n".join(lines)


def remains(held: Held, volumes: Iterable[Object]) -> list[str]:
    """Return what is left when the namespace is gone, and how that is removed."""
    lines = []
    host = urlsplit(held.redis_url).hostname
    if host and host.rpartition(".")[2] not in OUR_REDIS:
        lines.append(f"Left: the jobs, in the Redis at {host}.")
    kept = [v for v in volumes if (v["spec"].get("claimRef") or {}).get("namespace") == NAMESPACE]
    if kept:
        lines.append(f"Left: the data of Redis. Remove it with: kubectl delete persistentvolume {_names(kept, ' ')}")
    return [*lines, "Left: Knative. ./scripts/kind down removes the kind cluster with it."]


def _held(kubectl: Command) -> Held:
    here = ("-n", NAMESPACE)
    settings = [c["data"] for c in found(kubectl, "configmaps", *here, "-l", OURS) if "REDIS_URL" in c.get("data", {})]
    secrets = found(kubectl, "secrets", *here, "-l", f"!{OURS.partition('=')[0]}", "--field-selector=type=Opaque")
    return Held(
        [obj for kind in FUNCTIONS for obj in found(kubectl, kind, *here)],
        found(kubectl, "persistentvolumeclaims", *here),
        [obj for obj in secrets if not obj["metadata"].get("ownerReferences")],
        settings[-1]["REDIS_URL"] if settings else "",
    )


def _names(objects: Iterable[Object], separator: str = ", ") -> str:
    return separator.join(obj["metadata"]["name"] for obj in objects)


def _ask(what: str) -> None:
    print(what, flush=True)
    if not sys.stdin.isatty():
        sys.exit("Nothing was removed. To have it removed without being asked, add --yes")
    if input("Go on? [y/N] ").strip().lower() not in ("y", "yes"):
        sys.exit("Nothing was removed.")


def _delete(here: Command, kinds: Iterable[str]) -> None:
    known = set(run(*here, "api-resources", "-o", "name", may_fail=True).split())
    if some := ",".join(kind for kind in kinds if kind in known):
        run(*here, "delete", some, "--all", "--timeout=2m")


def _wait_for_pods(here: Command, *which: str) -> None:
    command = [*here, "wait", "pod", *(which or ["--all"]), "--for=delete", f"--timeout={LONGEST_SECONDS}s"]
    if subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode:  # noqa: S603
        sys.exit(
            f"These pods have not ended:\n{run(*here, 'get', 'pods', may_fail=True)}\nLeft: all that is in {NAMESPACE}."
        )
