"""The kind cluster on this machine: making it, Knative in it, and the image."""

# ruff: noqa: S603, S607
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from cluster import NAMESPACE, ROOT, ready
from cluster.shell import retry, run, step

CLUSTER = "knative-jobs"
CONTEXT = f"kind-{CLUSTER}"
KUBECTL = ("kubectl", "--context", CONTEXT)
DOMAIN = "127.0.0.1.sslip.io"
IMAGE = "kind.local/knative-jobs:dev"
VERSIONS = dict(
    line.split("=", 1)
    for line in (ROOT / "scripts" / "versions.env").read_text().splitlines()
    if line and not line.startswith("#")
)
SERVING = f"https://github.com/knative/serving/releases/download/knative-v{VERSIONS['KNATIVE_SERVING']}"
KOURIER = f"https://github.com/knative-extensions/net-kourier/releases/download/knative-v{VERSIONS['KNATIVE_KOURIER']}"
EVENTING = f"https://github.com/knative/eventing/releases/download/knative-v{VERSIONS['KNATIVE_EVENTING']}"
PARTS = (
    ([f"{SERVING}/serving-crds.yaml", f"{SERVING}/serving-core.yaml"], ["knative-serving"], "controller"),
    ([f"{KOURIER}/kourier.yaml"], ["knative-serving", "kourier-system"], "net-kourier-controller"),
    ([f"{EVENTING}/eventing-crds.yaml", f"{EVENTING}/eventing-core.yaml"], ["knative-eventing"], "eventing-controller"),
    ([f"{EVENTING}/in-memory-channel.yaml"], ["knative-eventing"], "imc-controller"),
    ([f"{EVENTING}/mt-channel-broker.yaml"], ["knative-eventing"], "mt-broker-controller"),
)
"""What is installed, in order: its files, its namespaces, and the Deployment that has its version as a label."""


def down() -> None:
    """Remove the cluster."""
    with step(f"Removing the cluster {CLUSTER}"):
        run("kind", "delete", "cluster", "--name", CLUSTER)


def create_cluster() -> None:
    """Make the cluster, or start the one that is there."""
    if CLUSTER in run("kind", "get", "clusters").split():
        with step(f"Starting the cluster {CLUSTER}"):
            run("docker", "start", f"{CLUSTER}-control-plane")  # it stops with the machine
            if CONTEXT not in run("kubectl", "config", "get-contexts", "-o", "name").split():
                run("kind", "export", "kubeconfig", "--name", CLUSTER)
            run(*KUBECTL, "wait", "node", "--all", "--for=condition=Ready", "--timeout=2m")
        return
    port = os.environ.get("PORT") or "80"
    with socket.socket() as probe:
        if not port.isdecimal() or probe.connect_ex(("127.0.0.1", int(port))) == 0:
            sys.exit(f"Port {port} of this machine cannot be had. Choose another: PORT=8080 ./scripts/kind up")
    with step(f"Creating the cluster {CLUSTER}; kubectl will point to it, as {CONTEXT}"):
        config = (ROOT / "knative/cluster/kind.yaml").read_text().replace("hostPort: 80", f"hostPort: {port}")
        image = VERSIONS["KIND_NODE_IMAGE"]
        run("kind", "create", "cluster", "--name", CLUSTER, "--image", image, "--config=-", "--wait=2m", text=config)


def install() -> None:
    """Install what is missing of Knative, and have Kourier answer at this machine's port."""
    for files, namespaces, deployment in PARTS:
        version = files[0].split("/knative-v")[1].split("/")[0]
        with step(f"Knative {version}: {', '.join(Path(file).name for file in files)}"):
            label = r"jsonpath={.metadata.labels.app\.kubernetes\.io/version}"
            if run(*KUBECTL, "-n", namespaces[0], "get", "deploy", deployment, "-o", label, may_fail=True) != version:
                _apply(files, namespaces)
            for namespace in namespaces:
                ready.wait(CONTEXT, namespace, "deployments.apps", "Available", "--all")
    with step(f"Kourier as the ingress of *.{DOMAIN}"):
        run(*KUBECTL, "apply", "-f", str(ROOT / "knative/cluster/kourier-nodeport.yaml"))
        for name, data in (
            ("config-network", {"ingress-class": "kourier.ingress.networking.knative.dev"}),
            ("config-domain", {DOMAIN: ""}),
        ):
            patch = ("patch", "configmap", name, "--type=merge", "-p", json.dumps({"data": data}))
            retry(*KUBECTL, "-n", "knative-serving", *patch)


def _apply(files: list[str], namespaces: list[str]) -> None:
    for file in files:
        retry(*KUBECTL, "apply", "-f", file)
        if file.endswith("-crds.yaml"):
            run(*KUBECTL, "wait", "crd", "--all", "--for=condition=Established", "--timeout=1m")
    for namespace in namespaces:
        # Knative asks for two CPUs all in all: on a machine of two that would leave none for the functions.
        few = ("set", "resources", "deployment", "--all", "--requests=cpu=10m")
        run(*KUBECTL, "-n", namespace, *few, may_fail=True)  # it says so when they ask for no more already


def build() -> None:
    """Build the image and load it into the node."""
    with step(f"Building {IMAGE}"):
        # Without attestations, which `kind load` cannot load from every image store of docker.
        env = {**os.environ, "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}
        subprocess.run(["docker", "build", "--tag", IMAGE, str(ROOT)], check=True, env=env)
    with step("Loading it into the cluster"):
        run("docker", "tag", IMAGE, tag_of_content())
        run("kind", "load", "docker-image", "--name", CLUSTER, IMAGE, tag_of_content())


def gateway() -> str:
    """Return the address of the ingress."""
    return f"http://{run('docker', 'port', f'{CLUSTER}-control-plane', '31080/tcp').split()[0]}"


def greet() -> None:
    """Let kubectl point to our namespace, and print where everything is."""
    run("kubectl", "config", "set-context", CONTEXT, "--namespace", NAMESPACE)
    print(run(*KUBECTL, "get", "ksvc", "-o", "custom-columns=NAME:.metadata.name,URL:.status.url"))
    port = gateway().rpartition(":")[2]
    domain = f"{NAMESPACE}.{DOMAIN}" + ("" if port == "80" else f":{port}")
    print(
        "",
        f"""  curl -X POST http://jobs.{domain}/jobs -d '{{"start": "1", "end": "2"}}'""",
        f"  curl 'http://jobs-status.{domain}/jobs_status?job_id=ID'",
        f"  curl http://completed-jobs.{domain}/completed_jobs",
        "",
        f"In a browser: http://dashboard.{domain}",
        "",
        sep="\n",
    )


def tag_of_content() -> str:
    """Return the name of the image under a tag that changes with its content."""
    digest = run("docker", "image", "inspect", "--format", "{{.Id}}", IMAGE).partition(":")[2]
    return f"{IMAGE.rpartition(':')[0]}:{digest[:12]}"
