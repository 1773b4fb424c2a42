"""Waiting until everything is ready, and saying why something does not get so."""

# ruff: noqa: S603
import subprocess
import sys

from cluster import NAMESPACE
from cluster.objects import Object, found, identity
from cluster.shell import run

READY = {
    ("apps", "Deployment"): ("deployments.apps", "Available"),
    ("apps", "StatefulSet"): ("statefulsets.apps", ""),
    ("eventing.knative.dev", "Broker"): ("brokers.eventing.knative.dev", "Ready"),
    ("serving.knative.dev", "Service"): ("services.serving.knative.dev", "Ready"),
    ("sinks.knative.dev", "JobSink"): ("jobsinks.sinks.knative.dev", "Ready"),
    ("eventing.knative.dev", "Trigger"): ("triggers.eventing.knative.dev", "Ready"),
    ("sources.knative.dev", "PingSource"): ("pingsources.sources.knative.dev", "Ready"),
}
"""The kinds that get ready, in the order in which they do: kubectl's name for each, and the condition that says so.
A StatefulSet has none: it counts the pods that are ready.
"""


def all_of(context: str, objects: list[Object]) -> None:
    """Wait until all of these are ready that get so; when one does not, say why and exit."""
    for (group, kind), (resource, condition) in READY.items():
        found_here = {obj["metadata"]["name"]: obj for obj in objects if identity(obj)[:2] == (group, kind)}
        if condition and found_here:
            wait(context, NAMESPACE, resource, condition, *found_here)
            continue
        for name, obj in found_here.items():
            pods = f"jsonpath={{.status.readyReplicas}}={obj['spec']['replicas']}"
            wait(context, NAMESPACE, resource, pods, name)


def wait(context: str, namespace: str, kind: str, condition: str, *which: str) -> None:
    """Wait until objects, by name or `--all`, are so; when one does not get so, say why and exit.

    Args:
        context: of kubectl.
        namespace: where they are.
        kind: as kubectl names it.
        condition: the name of one, or what `kubectl wait` compares, which has a `=`.
        which: their names, or `--all`.
    """
    kubectl = ("kubectl", "--context", context, "-n", namespace)
    until = condition if "=" in condition else f"condition={condition}"
    command = [*kubectl, "wait", kind, *which, f"--for={until}", "--timeout=5m"]
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
