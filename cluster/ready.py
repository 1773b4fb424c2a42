"""Waiting until everything is ready, and saying why something does not get so."""

# ruff: noqa: S603
import subprocess
import sys

from cluster import NAMESPACE
from cluster.objects import Object, found, identity
from cluster.shell import run

READY = {
    ("apps", "Deployment"): ("deployments.apps", "Available"),
    ("eventing.knative.dev", "Broker"): ("brokers.eventing.knative.dev", "Ready"),
    ("serving.knative.dev", "Service"): ("services.serving.knative.dev", "Ready"),
    ("sinks.knative.dev", "JobSink"): ("jobsinks.sinks.knative.dev", "Ready"),
    ("eventing.knative.dev", "Trigger"): ("triggers.eventing.knative.dev", "Ready"),
    ("sources.knative.dev", "PingSource"): ("pingsources.sources.knative.dev", "Ready"),
}
"""The kinds that get ready, in the order in which they do: kubectl's name for each, and the condition that says so."""


def all_of(context: str, objects: list[Object]) -> None:
    """Wait until all of these are ready that get so; when one does not, say why and exit."""
    for (group, kind), (resource, condition) in READY.items():
        if names := [name for *of, name in map(identity, objects) if of == [group, kind]]:
            wait(context, NAMESPACE, resource, condition, *names)


def wait(context: str, namespace: str, kind: str, condition: str, *which: str) -> None:
    """Wait until objects, by name or `--all`, have a condition; when one does not get it, say why and exit."""
    kubectl = ("kubectl", "--context", context, "-n", namespace)
    command = [*kubectl, "wait", kind, *which, f"--for=condition={condition}", "--timeout=5m"]
    if subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0:
        return
    print(*reasons(found(kubectl, kind), condition), *of_pods(found(kubectl, "pods")), sep="\n", file=sys.stderr)
    events = run(*kubectl, "get", "events", "--field-selector=type=Warning", "--sort-by=.lastTimestamp", may_fail=True)
    print("\nThe last warnings:", *events.splitlines()[-8:], sep="\n", file=sys.stderr)
    sys.exit(1)


def reasons(objects: list[Object], condition: str) -> list[str]:
    """Return which of the objects do not have the condition, and what they say of that."""
    lines = []
    for obj in objects:
        conditions = obj.get("status", {}).get("conditions", [])
        if any(c["type"] == condition and c["status"] == "True" for c in conditions):
            continue
        lines += ["", f"{obj['kind']} {obj['metadata']['name']} is not {condition}:"]
        lines += [
            f"  {c['type']}: {c.get('reason', '')} {c.get('message', '')}" for c in conditions if c["status"] != "True"
        ]
    return lines


def of_pods(pods: list[Object]) -> list[str]:
    """Return why pods do not run: no node takes them, or a container waits or has ended."""
    lines = []
    for pod in pods:
        status = pod.get("status", {})
        told = [c for c in status.get("conditions", []) if c["type"] == "PodScheduled" and c["status"] != "True"]
        for container in status.get("containerStatuses", []):
            state = container.get("state", {})
            told += [s for s in (state.get("waiting"), state.get("terminated")) if s]
        lines += [f"\nPod {pod['metadata']['name']}: {s.get('reason', '')} {s.get('message', '')}" for s in told]
    return lines
