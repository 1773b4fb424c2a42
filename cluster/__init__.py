"""The job API on a Kubernetes cluster with Knative: the steps of `scripts/kind`.

It runs docker, kind and kubectl and needs nothing but Python's standard library. What it decides is apart from what it
does: the functions of `needs.py` and `objects.py` take values and return values.

    kind.py      the kind cluster, Knative in it, and the image
    deploy.py    applies an overlay: checks first, waits after it, and removes what the overlay before it had
    delete.py    takes a deployment away
    needs.py     what an overlay needs of a cluster
    objects.py   Kubernetes objects as kubectl prints them
    ready.py     waits until all is ready, and says why something does not get so
    shell.py     runs commands
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NAMESPACE = "knative-jobs"
"""Where every overlay is deployed."""
OURS = "app.kubernetes.io/part-of=knative-jobs"
"""The label of every object of an overlay: see knative/labels."""
