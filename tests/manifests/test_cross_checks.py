"""What no schema sees: that the manifests fit each other, the code, and what Knative and Kubernetes do with them."""

import ast
import tomllib
from dataclasses import fields
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from knative_jobs.events.emit import ENDED
from knative_jobs.runtime.settings import Settings
from knative_jobs.runtime.settings import settings as read_settings
from local import redis_users
from tests.conftest import ROOT, Start
from tests.manifests.rendered import (
    KNATIVE,
    OVERLAYS,
    WEBHOOK,
    WITH_COMPONENT,
    Manifest,
    functions,
    is_worker,
    of_kind,
    one,
    pod_of,
    pods,
    reads,
    rendered,
    settings,
    source,
    target,
    with_component,
    workers,
)

ALL = pytest.mark.parametrize("overlay", ["base", *OVERLAYS])
HANDLERS = {path.stem for path in (ROOT / "functions").glob("*.py")} - {"api"}
"""Those that have a Service each; `api` is all public ones together."""
EACH = pytest.mark.parametrize("name", sorted(stem.replace("_", "-") for stem in HANDLERS))
CLUSTER_LOCAL = {"worker", "sweeper", "dead-letter", "job-requests", "bulk-operations"}
INGRESS_OF_CLASS = {
    "": "broker-ingress.knative-eventing.svc.cluster.local",
    "Kafka": "kafka-broker-ingress.knative-eventing.svc.cluster.local",
}
LONGEST_REQUEST_S = 600
"""The most that Knative takes for timeoutSeconds, without a change of its own settings."""
QUIET_S = 30
"""How long Knative keeps a pod that it ends as it is, before the SIGTERM: requests may still be on their way."""
WORKER_MIB = 96
"""What a worker needs beside its work: its two processes have some 60 MiB, more where traces are sent."""
REDIS = ("Deployment redis", "StatefulSet redis")
QUEUE_PROXY_CPU = "queue.sidecar.serving.knative.dev/cpu-resource-request"
"""The annotation with what Knative's own container in a function's pod asks for."""


def test_every_function_has_a_service_and_every_service_a_function() -> None:
    by_target = {target(m): name for name, m in functions("base").items()}
    assert by_target == {stem: stem.replace("_", "-") for stem in HANDLERS}


@pytest.mark.parametrize("overlay", ["base", *OVERLAYS, WEBHOOK])
def test_every_service_is_named_after_a_function_or_names_one(overlay: str) -> None:
    for service in functions(overlay).values():
        module = ast.parse(source(service).read_text())
        assert target(service) in [f.name for f in module.body if isinstance(f, ast.FunctionDef)]


@ALL
def test_the_work_may_have_less_memory_than_its_pod(overlay: str) -> None:
    """So that work which runs out of it is ended alone. The rest is for the worker, and the server's main process."""
    assert workers(overlay)
    for worker in workers(overlay):
        (container,) = pod_of(worker)["containers"]
        limit = container["resources"]["limits"]["memory"]
        assert limit.endswith("Mi")
        of_the_work = int(reads(worker, rendered(overlay))["WORK_MEMORY_MIB"])
        assert 0 < of_the_work <= int(limit.removesuffix("Mi")) - WORKER_MIB, worker["metadata"]["name"]


@ALL
def test_what_events_bring_to_life_is_reached_from_the_cluster_alone(overlay: str) -> None:
    label = "networking.knative.dev/visibility"
    local = {n for n, m in functions(overlay).items() if m["metadata"]["labels"].get(label) == "cluster-local"}
    assert local == {name for name, m in functions(overlay).items() if name in CLUSTER_LOCAL or is_worker(m)}


@ALL
def test_every_sink_is_there(overlay: str) -> None:
    sinks = [m["spec"]["sink"]["ref"] for m in of_kind(overlay, "PingSource")]
    for trigger in of_kind(overlay, "Trigger"):
        assert one(overlay, "Broker", trigger["spec"]["broker"])
        sinks += [trigger["spec"]["subscriber"]["ref"], trigger["spec"]["delivery"]["deadLetterSink"]["ref"]]
    for ref in sinks:
        assert one(overlay, ref["kind"], ref["name"], ref["apiVersion"])


def test_the_webhook_component_brings_its_function_and_a_trigger_that_calls_it() -> None:
    service = functions(WEBHOOK)["webhook"]
    trigger = one(WEBHOOK, "Trigger", "webhook")
    ref = trigger["spec"]["subscriber"]["ref"]
    assert one(WEBHOOK, ref["kind"], ref["name"], ref["apiVersion"]) is service
    assert one(WEBHOOK, "Broker", trigger["spec"]["broker"])
    assert trigger["spec"]["filter"]["attributes"]["type"] in ENDED.values()
    assert service["metadata"]["labels"]["networking.knative.dev/visibility"] == "cluster-local"
    [container] = service["spec"]["template"]["spec"]["containers"]
    assert (
        container["image"] == one(WEBHOOK, "Deployment", "debug")["spec"]["template"]["spec"]["containers"][0]["image"]
    )
    assert source(service).parent == ROOT / "examples"
    assert "COPY --from=build /app/examples examples" in (ROOT / "Dockerfile").read_text()


@ALL
def test_k_sink_is_the_address_of_the_broker(overlay: str) -> None:
    broker = one(overlay, "Broker", "default")
    metadata = broker["metadata"]
    ingress = INGRESS_OF_CLASS[metadata.get("annotations", {}).get("eventing.knative.dev/broker.class", "")]
    assert settings(overlay)["K_SINK"] == f"http://{ingress}/{metadata['namespace']}/{metadata['name']}"


LABELS = {"app.kubernetes.io/part-of": "knative-jobs", "app.kubernetes.io/managed-by": "kustomize"}
OWN_LABELS = {f"app.kubernetes.io/{name}" for name in ("name", "component", "version")}


@pytest.mark.parametrize("overlay", ["base", *OVERLAYS, WEBHOOK])
def test_every_object_has_the_usual_labels(overlay: str) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for manifest in rendered(overlay):
        labels = manifest["metadata"].get("labels", {})
        assert LABELS.items() <= labels.items(), manifest
        assert labels.keys() >= OWN_LABELS, manifest
        assert labels["app.kubernetes.io/version"] == version, manifest


@pytest.mark.parametrize("component", sorted(path.name for path in (KNATIVE / "components").iterdir()))
def test_what_a_component_adds_has_them_too(component: str, tmp_path: Path) -> None:
    for manifest in with_component("production", component, tmp_path):
        assert {*LABELS, *OWN_LABELS} <= manifest["metadata"].get("labels", {}).keys(), manifest


@ALL
def test_all_is_in_one_namespace(overlay: str) -> None:
    [namespace] = of_kind(overlay, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    name = namespace["metadata"]["name"]
    assert {m["metadata"].get("namespace", name) for m in rendered(overlay)} == {name}


@ALL
def test_the_manifests_set_what_the_code_reads(overlay: str) -> None:
    read = {field.name.upper() for field in fields(Settings)}
    found_by_the_worker_itself, set_by_knative = "WORKER_IP", "K_SERVICE"
    by_the_name_of_the_service = {"FUNCTION_TARGET", "FUNCTION_SOURCE"}
    by_kind = {"JOB_KIND", "WORKER_CONCURRENCY"}
    by_service, by_secret = {"REDIS_USERNAME", "REDIS_PASSWORD"}, {"API_TOKENS", "REDIS_SENTINEL_PASSWORD"}
    assert {*settings(overlay)} == read - by_service - by_secret - {
        found_by_the_worker_itself,
        set_by_knative,
        *by_the_name_of_the_service,
        *by_kind,
    }


@ALL
def test_the_settings_are_values_that_the_code_takes(overlay: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in settings(overlay).items():
        monkeypatch.setenv(name, value)
    read_settings.__wrapped__()


@ALL
def test_every_pod_reads_the_settings_and_the_password_of_its_own_redis_user(overlay: str) -> None:
    [name] = [m["metadata"]["name"] for m in of_kind(overlay, "ConfigMap") if "K_SINK" in m["data"]]
    for owner, pod in pods(overlay):
        if owner == "Deployment redis":
            continue
        [container] = pod["containers"]
        assert container["envFrom"][0] == {"configMapRef": {"name": name}}, owner
        env = {entry["name"]: entry for entry in container.get("env", [])}
        if owner != "Service openapi":
            user = env["REDIS_USERNAME"]["value"]
            assert env["REDIS_PASSWORD"]["valueFrom"] == {"secretKeyRef": {"name": "redis", "key": user}}, owner
            assert redis_users.rules()[user].startswith("on "), owner


@ALL
def test_tokens_are_asked_for_in_production_by_every_public_function(overlay: str) -> None:
    for name, service in functions(overlay).items():
        [container] = service["spec"]["template"]["spec"]["containers"]
        secrets = [source["secretRef"]["name"] for source in container["envFrom"] if "secretRef" in source]
        public = name not in CLUSTER_LOCAL and not is_worker(service)
        assert secrets == (["api-tokens"] if overlay == "production" and public else []), name


def test_the_kind_overlay_has_a_password_for_every_redis_user() -> None:
    [secret] = of_kind("kind", "Secret")
    rules = redis_users.rules()
    assert set(secret["data"]) == {
        user for user, rule in rules.items() if rule.startswith("on") and "nopass" not in rule
    }


@pytest.mark.parametrize("overlay", ["kind", "production"])
def test_one_endpoint_is_the_service_jobs_with_all_that_the_overlay_says_of_it(overlay: str, tmp_path: Path) -> None:
    manifests = with_component(overlay, "one-endpoint", tmp_path)
    services = {m["metadata"]["name"]: m for m in manifests if m["apiVersion"].startswith("serving.knative.dev")}
    of_kinds = {name for name, service in functions(overlay).items() if is_worker(service)}
    assert services.keys() == CLUSTER_LOCAL | of_kinds | {"jobs", "metrics"}
    assert all(services[name] == functions(overlay)[name] for name in services.keys() - {"jobs"})

    spec, alone = (s["jobs"]["spec"]["template"]["spec"] for s in (services, functions(overlay)))
    waiting = functions(overlay)["jobs-status"]["spec"]["template"]["spec"]
    for field in ("containerConcurrency", "timeoutSeconds"):
        assert spec.pop(field) == waiting[field] == alone[field]
    [container], [alone_container] = spec["containers"], alone["containers"]
    assert container.pop("env") == [
        {"name": "REDIS_USERNAME", "value": "api"},
        {"name": "REDIS_PASSWORD", "valueFrom": {"secretKeyRef": {"name": "redis", "key": "api"}}},
        {"name": "FUNCTION_TARGET", "value": "api"},
    ]
    assert container == {name: value for name, value in alone_container.items() if name != "env"}
    assert ("secretRef" in str(container["envFrom"])) == (overlay == "production"), "it asks for tokens, too"
    assert spec["volumes"] == alone["volumes"]


@pytest.mark.parametrize("overlay", ["base", "production"])
def test_no_password_is_written_down(overlay: str) -> None:
    assert not of_kind(overlay, "Secret")


@pytest.mark.parametrize("overlay", ["base", *OVERLAYS, *WITH_COMPONENT])
def test_every_pod_fits_the_restricted_profile(overlay: str) -> None:
    """See https://kubernetes.io/docs/concepts/security/pod-security-standards/; and a root that nothing can write."""
    for owner, pod in pods(overlay):
        for container in pod["containers"]:
            context = pod.get("securityContext", {}) | container["securityContext"]
            assert context["runAsNonRoot"] is True, owner
            assert context["allowPrivilegeEscalation"] is False, owner
            assert context["capabilities"] == {"drop": ["ALL"]}, owner
            assert context["seccompProfile"] == {"type": "RuntimeDefault"}, owner
            assert context["readOnlyRootFilesystem"] is True, owner
            assert container["resources"].keys() == {"requests", "limits"}, owner
        allowed = {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret"}
        assert {kind for volume in pod["volumes"] for kind in volume} - {"name"} <= allowed, owner
        assert pod["automountServiceAccountToken"] is False, owner


@pytest.mark.parametrize("overlay", ["base", *OVERLAYS, *WITH_COMPONENT])
def test_python_has_a_folder_for_temporary_files(overlay: str) -> None:
    for owner, pod in pods(overlay):
        if owner not in REDIS:
            assert {"name": "tmp", "emptyDir": {}} in pod["volumes"], owner
            assert {"name": "tmp", "mountPath": "/tmp"} in pod["containers"][0]["volumeMounts"], owner


@ALL
def test_images_are_pinned(overlay: str) -> None:
    if overlay != "base":  # it leaves that to the overlays
        for owner, pod in pods(overlay):
            _, _, tag = pod["containers"][0]["image"].rpartition("/")[2].partition(":")
            assert tag not in ("", "latest"), owner


def test_production_names_its_image_by_digest() -> None:
    assert all("@sha256:" in pod["containers"][0]["image"] for _, pod in pods("production"))


def test_production_has_redis_elsewhere_and_over_tls() -> None:
    assert urlsplit(settings("production")["REDIS_URL"]).scheme == "rediss"
    assert "redis" not in [m["metadata"]["name"] for m in rendered("production")]


@ALL
def test_autoscaling_is_set_on_the_template(overlay: str) -> None:
    for name, service in functions(overlay).items():
        assert not any("autoscaling" in key for key in service["metadata"].get("annotations", {})), name
        scale = service["spec"]["template"]["metadata"]["annotations"]
        assert int(scale["autoscaling.knative.dev/max-scale"]) >= int(scale.get("autoscaling.knative.dev/min-scale", 0))


@ALL
def test_no_request_may_last_longer_than_knative_allows(overlay: str) -> None:
    for name, service in functions(overlay).items():
        assert service["spec"]["template"]["spec"]["timeoutSeconds"] <= LONGEST_REQUEST_S, name


@ALL
def test_the_workers_request_outlasts_what_it_may_do(overlay: str) -> None:
    for worker in workers(overlay):
        if worker["kind"] == "Service":
            spec, name = pod_of(worker), worker["metadata"]["name"]
            read = reads(worker, rendered(overlay))
            of = {setting: float(value) for setting, value in read.items() if setting.endswith("_SECONDS")}
            assert of["WORKER_DRAIN_SECONDS"] + of["JOB_TIMEOUT_SECONDS"] < spec["timeoutSeconds"], name
            assert spec["responseStartTimeoutSeconds"] == spec["timeoutSeconds"], "the answer comes at the end"
            assert QUIET_S + of["WORKER_GRACE_SECONDS"] < spec["timeoutSeconds"], "its pod has as long to end"


@ALL
def test_a_sweep_fits_into_its_request(overlay: str) -> None:
    spec = functions(overlay)["sweeper"]["spec"]["template"]["spec"]
    assert float(settings(overlay)["SWEEP_SECONDS"]) < min(60, spec["timeoutSeconds"])


@ALL
def test_a_long_job_outlasts_any_request_and_ends_in_time(overlay: str) -> None:
    for worker in workers(overlay):
        if worker["kind"] == "JobSink":
            read = reads(worker, rendered(overlay))
            assert float(read["JOB_TIMEOUT_SECONDS"]) > LONGEST_REQUEST_S, worker["metadata"]["name"]
            assert float(read["WORKER_GRACE_SECONDS"]) < pod_of(worker)["terminationGracePeriodSeconds"]


def test_all_of_it_fits_on_two_cpus_beside_knative() -> None:
    """Kubernetes asks for 950m, Knative for 300m as scripts/kind installs it; at first each function has a pod.

    A JobSink has one for each of its jobs alone.
    """
    at_first = [pod for owner, pod in pods("kind") if not owner.startswith("JobSink")]
    asked = sum(map(mcpu, at_first))
    for function in functions("kind").values():
        asked += int(function["spec"]["template"]["metadata"]["annotations"][QUEUE_PROXY_CPU].removesuffix("m"))
    assert asked <= 2000 - 950 - 300


@EACH
def test_the_readiness_probe_is_answered(name: str, endpoint: Start) -> None:
    [container] = functions("base")[name]["spec"]["template"]["spec"]["containers"]
    path = container["readinessProbe"]["httpGet"]["path"]
    assert endpoint(name.replace("-", "_")).request("GET", path).status == 200


def mcpu(pod: Manifest) -> int:
    return sum(int(c["resources"]["requests"]["cpu"].removesuffix("m")) for c in pod["containers"])
