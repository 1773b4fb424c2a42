"""`scripts/kind STEP`."""

import argparse
import subprocess
import sys
from pathlib import Path

from cluster import ROOT, black_box, deploy, kind
from cluster import delete as removal
from cluster.shell import need, run

STEPS = """The job API on Knative, in a kind cluster on this machine, or in any cluster.

up        all of it: the cluster, then install, build and deploy; harmless when it is there already
down      remove the kind cluster
install   Knative Serving, Kourier and Eventing, into the kind cluster
build     the image, into the kind cluster
deploy    apply an overlay to the cluster that kubectl points to, and wait until all of it is ready
delete    remove the deployment from the cluster that kubectl points to; asks before, unless --yes
test      run tests/e2e against the cluster that kubectl points to; what follows goes to pytest

The versions are in scripts/versions.env. PORT=8080 scripts/kind up takes another port of this machine than 80.
"""
OVERLAY = ROOT / "knative" / "overlays" / "kind"


def main() -> None:
    """Do the step that the command line names."""
    parser = argparse.ArgumentParser("scripts/kind", description=STEPS, formatter_class=argparse.RawTextHelpFormatter)
    names = ("up", "down", "install", "build", "deploy", "delete", "test")
    parser.add_argument("step", choices=names, metavar="STEP")
    parser.add_argument("--overlay", type=Path, default=OVERLAY, help="what to deploy (default: knative/overlays/kind)")
    parser.add_argument("--yes", action="store_true", help="delete without asking")
    options, more = parser.parse_known_args()
    if more and options.step != "test":
        parser.error(f"unknown: {' '.join(more)}")
    try:
        _do(options.step, options.overlay, options.yes, more)
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
    except KeyboardInterrupt:
        sys.exit(130)


def _do(step: str, overlay: Path, yes: bool, more: list[str]) -> None:
    match step:
        case "deploy":
            deploy.deploy(_context(), overlay)
        case "delete":
            removal.delete(_context(), yes)
        case "test":
            black_box.test(_context(), more)
        case _:
            need("docker", "kind", "kubectl")
            {"up": _up, "down": kind.down, "install": kind.install, "build": kind.build}[step]()


def _up() -> None:
    kind.create_cluster()
    kind.install()
    kind.build()
    deploy.deploy(kind.CONTEXT, OVERLAY)
    kind.greet()


def _context() -> str:
    """Return which cluster kubectl points to."""
    need("kubectl")
    context = run("kubectl", "config", "current-context", may_fail=True)
    return context or sys.exit("kubectl points to no cluster: kubectl config use-context NAME, or ./scripts/kind up")
