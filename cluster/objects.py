"""Kubernetes objects, as kubectl prints them in JSON."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from cluster.shell import Command, run

Object = dict[str, Any]
Identity = tuple[str, str, str]
"""The group, the kind and the name of an object: what stays the same when its version changes."""

PRUNED = (
    "services.serving.knative.dev",
    "jobsinks.sinks.knative.dev",
    "triggers.eventing.knative.dev",
    "pingsources.sources.knative.dev",
    "eventpolicies.eventing.knative.dev",
    "deployments.apps",
    "statefulsets.apps",
    "services",
    "networkpolicies.networking.k8s.io",
    "poddisruptionbudgets.policy",
    "servicemonitors.monitoring.coreos.com",
    "prometheusrules.monitoring.coreos.com",
)
"""The kinds that are removed with the overlay that had them. Never a PersistentVolumeClaim or a Secret: what is in them
cannot be made again. And no ConfigMap: Revisions of before, to which one may go back, read theirs.
"""
APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
"""The annotation of what `kubectl apply` has made. What a controller makes of it has the labels and lacks this."""


def rendered(overlay: str) -> tuple[str, list[Object]]:
    """Return the manifests of an overlay, as YAML to be applied and as objects to be looked at."""
    text = run("kubectl", "kustomize", overlay)
    # Removes an annotation that nothing has. It is the one command that prints any kind as JSON without a cluster.
    return text, list(_documents(run("kubectl", "annotate", "--local", "-f", "-", "-o", "json", "none-", text=text)))


def found(kubectl: Command, *query: str) -> list[Object]:
    """Return what `kubectl get` finds; nothing where there is no such kind or namespace."""
    printed = run(*kubectl, "get", *query, "-o", "json", may_fail=True)
    objects: list[Object] = json.loads(printed or '{"items": []}')["items"]
    return objects


def identity(obj: Object) -> Identity:
    """Return which object it is, within its namespace."""
    group, _, _ = obj["apiVersion"].rpartition("/")
    return group, obj["kind"], obj["metadata"]["name"]


def left_over(there: Iterable[Object], wanted: Iterable[Object]) -> list[Object]:
    """Return those of the objects in the cluster that an overlay before had applied and this one does not have."""
    keep = {identity(obj) for obj in wanted}
    return [obj for obj in there if APPLIED in obj["metadata"].get("annotations", {}) and identity(obj) not in keep]


def address(obj: Object) -> str:
    """Return an object's name as kubectl takes it: `services.v1.serving.knative.dev/jobs`, or `service/redis`."""
    group, _, version = obj["apiVersion"].rpartition("/")
    kind = f"{obj['kind'].lower()}.{version}.{group}" if group else obj["kind"].lower()
    return f"{kind}/{obj['metadata']['name']}"


def _documents(text: str) -> Iterator[Object]:
    """Read JSON documents that follow each other."""
    decoder, place = json.JSONDecoder(), 0
    while place < len(text):
        document, end = decoder.raw_decode(text, place)
        yield document
        place = len(text) - len(text[end:].lstrip())
