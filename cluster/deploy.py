"""Deploying an overlay: nothing is applied by halves, and nothing stays of the overlay before."""

import os
import subprocess
import sys
from pathlib import Path

from cluster import NAMESPACE, OURS, kind, needs, ready
from cluster.objects import PRUNED, Object, address, found, left_over, rendered
from cluster.shell import Command, retry, run, step


def deploy(context: str, overlay: Path) -> None:
    """Apply an overlay to a cluster, wait until all of it is ready, and remove what the overlay before it had."""
    kubectl = ("kubectl", "--context", context)
    text, objects = rendered(str(overlay))
    if context == kind.CONTEXT:
        # A tag that goes by the content, because Knative starts what is new only when a template changes.
        text = text.replace(kind.IMAGE, kind.tag_of_content())
    with step(f"Asking {context} whether it can take {os.path.relpath(overlay)}"):
        _check(kubectl, text, objects)
    with step(f"Deploying {os.path.relpath(overlay)} to {context}"):
        print(retry(*kubectl, "apply", "-f", "-", text=text))
    with step("Waiting until all of it is ready"):
        ready.all_of(context, objects)
    _check_sink(kubectl, objects)
    _prune(kubectl, objects)


def look(kubectl: Command, objects: list[Object]) -> needs.Cluster:
    """Find out what of the things that an overlay may need is in the cluster."""
    table = run(*kubectl, "api-resources", "--no-headers", may_fail=True)
    rows = [words for line in table.splitlines() if len(words := line.split()) >= 4]
    if not rows:
        run(*kubectl, "api-resources")  # says why nothing was printed
    features = found(kubectl, "configmap", "-n", "knative-eventing", "--field-selector=metadata.name=config-features")
    return needs.Cluster(
        kinds={(api_version.rpartition("/")[0], kind) for *_, api_version, _, kind in rows},
        versions=set(run(*kubectl, "api-versions", may_fail=True).split()),
        features=features[0].get("data", {}) if features else {},
        present={
            used
            for used in needs.references(objects)
            if run(*kubectl, "-n", used.namespace, "get", used.kind, used.name, "-o", _part(used), may_fail=True)
        },
    )


def _part(used: needs.Reference) -> str:
    """Return what kubectl is to print of an object: nothing where it lacks the key that is used."""
    return f"jsonpath={{.data['{used.key}']}}" if used.key else "name"


def _check(kubectl: Command, text: str, objects: list[Object]) -> None:
    """Exit before anything is applied when the cluster lacks something or would refuse something."""
    if missing := needs.missing(objects, look(kubectl, objects)):
        sys.exit("\n".join(["Nothing was applied, for something is missing:", *(f"- {line}" for line in missing)]))
    if run(*kubectl, "get", "namespace", NAMESPACE, "--ignore-not-found", "-o", "name"):
        # Every webhook says what it thinks of it. In a namespace that is not there yet, it cannot be asked.
        trial = [*kubectl, "apply", "--dry-run=server", "-f", "-"]
        done = subprocess.run(trial, input=text, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            sys.exit(f"Nothing was applied, for the cluster would refuse this:\n{done.stderr}")


def _check_sink(kubectl: Command, objects: list[Object]) -> None:
    broker = run(*kubectl, "-n", NAMESPACE, "get", "broker", "default", "-o", "jsonpath={.status.address.url}")
    if broker not in [obj["data"].get("K_SINK") for obj in objects if obj["kind"] == "ConfigMap"]:
        sys.exit(f"The Broker listens at {broker}, and K_SINK of the settings says otherwise: no event would arrive.")


def _prune(kubectl: Command, objects: list[Object]) -> None:
    """Remove what only the overlay before had.

    By the label that all our objects have, and not by `kubectl apply --prune`: that is alpha in both of its forms, with
    an ApplySet it would take the volume of Redis too, and with a label it would leave out of an overlay what lacks it.
    """
    kinds = set(run(*kubectl, "api-resources", "-o", "name", may_fail=True).split())
    there = found(kubectl, ",".join(k for k in PRUNED if k in kinds), "-n", NAMESPACE, "-l", OURS)
    if gone := [address(obj) for obj in left_over(there, objects)]:
        with step(f"Removing what this overlay does not have: {', '.join(gone)}"):
            # Pods finish what they do, for as long as their grace period: nobody has to wait for that.
            run(*kubectl, "-n", NAMESPACE, "delete", "--wait=false", *gone)
