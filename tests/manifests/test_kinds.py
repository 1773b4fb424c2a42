"""Kinds of job: a folder in `knative/kinds` is all that a kind needs, and no kind changes another."""

import re
import shutil
import subprocess
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from knative_jobs.events.emit import SUBMITTED
from knative_jobs.runtime.job_kind import BULK
from knative_jobs.work import api
from local import manifests as on_one_machine
from tests.conftest import ROOT
from tests.manifests.rendered import (
    KNATIVE,
    OVERLAYS,
    Manifest,
    build,
    is_worker,
    of_kind,
    pod_of,
    reads,
    rendered,
    with_component,
    workers,
)

KINDS = sorted(folder.name for folder in (KNATIVE / "kinds").iterdir())
SERVICE_KIND, JOBSINK_KIND = "kinds/word-count", "kinds/primes"
MIXED = {
    "production with kinds": ("production", JOBSINK_KIND, SERVICE_KIND),
    "production with kinds before all": ("production", SERVICE_KIND, JOBSINK_KIND, "long-jobs", "event-policy"),
    "production with kinds after long jobs": ("production", "long-jobs", SERVICE_KIND, JOBSINK_KIND, "event-policy"),
    "production with all in one endpoint": ("production", SERVICE_KIND, "one-endpoint", "one-address", JOBSINK_KIND),
}
"""Somebody's own overlays, with kinds and components in several orders."""
ALL = pytest.mark.parametrize("overlay", ["base", *OVERLAYS, *MIXED])
OF_A_KIND = {
    *("WORKER_CONCURRENCY", "JOB_TIMEOUT_SECONDS", "JOB_BACKOFF_SECONDS", "JOB_MAX_RUNNING"),
    *("WORK_MEMORY_MIB", "WORKER_DRAIN_SECONDS", "WORKER_GRACE_SECONDS"),
}
"""The settings that workers alone read."""
PARALLELISM = "rabbitmq.eventing.knative.dev/parallelism"
MOST_PARALLELISM = 1000
"""What the RabbitMQ Broker takes at most."""


@cache
def manifests(overlay: str) -> tuple[Manifest, ...]:
    if overlay not in MIXED:
        return tuple(rendered(overlay))
    ours, first, *others = MIXED[overlay]
    with tempfile.TemporaryDirectory() as folder:
        return tuple(with_component(ours, first, Path(folder), *others))


def triggers(overlay: str) -> dict[str, Manifest]:
    """Those for submitted jobs, by the kind of these. Nobody submits bulk operations."""
    found = {}
    for manifest in manifests(overlay):
        if manifest["kind"] == "Trigger" and manifest["spec"]["filter"]["attributes"]["type"] == SUBMITTED:
            kind = manifest["spec"]["filter"]["attributes"]["jobkind"]
            assert kind not in found, "one alone: a job has one worker"
            found[kind] = manifest
    assert found.pop(BULK)["spec"]["subscriber"]["ref"]["name"] == "bulk-operations"
    return found


def subscribers(overlay: str) -> dict[str, Manifest]:
    """The Service or the JobSink of each kind."""
    found = {}
    for kind, trigger in triggers(overlay).items():
        ref = trigger["spec"]["subscriber"]["ref"]
        [found[kind]] = [
            manifest
            for manifest in manifests(overlay)
            if (manifest["apiVersion"], manifest["kind"]) == (ref["apiVersion"], ref["kind"])
            and manifest["metadata"]["name"] == ref["name"]
        ]
    return found


def of_all(overlay: str) -> dict[str, str]:
    [settings] = [m["data"] for m in manifests(overlay) if m["kind"] == "ConfigMap" and "K_SINK" in m["data"]]
    return dict(settings)


@ALL
def test_the_kinds_that_may_be_submitted_are_those_that_have_workers(overlay: str) -> None:
    expected = Counter(["default"])
    for component in MIXED.get(overlay, ()):
        expected += Counter([component.removeprefix("kinds/")] if component.startswith("kinds/") else [])
    if overlay.startswith("kind"):
        expected += Counter(KINDS)
    assert Counter(of_all(overlay)["JOB_KINDS"].split()) == expected
    assert triggers(overlay).keys() == expected.keys()
    with_jobsink = {kind for kind, subscriber in subscribers(overlay).items() if subscriber["kind"] == "JobSink"}
    assert Counter(of_all(overlay)["JOBSINK_KINDS"].split()) == Counter(with_jobsink)


@ALL
def test_each_kind_has_a_worker_of_its_own_which_does_no_other_jobs(overlay: str) -> None:
    of_kinds = subscribers(overlay)
    assert len(of_kinds) == len([m for m in manifests(overlay) if is_worker(m)])
    for kind, worker in of_kinds.items():
        name = "worker" if kind == "default" else f"worker-{kind}"
        assert worker["metadata"]["name"] == triggers(overlay)[kind]["metadata"]["name"] == name
        assert reads(worker, list(manifests(overlay)))["JOB_KIND"] == kind
        for labelled in (worker, triggers(overlay)[kind]):
            assert labelled["metadata"]["labels"]["knative-jobs.dev/kind"] == kind


@ALL
def test_a_worker_gets_as_many_requests_as_it_does_jobs_and_no_broker_holds_them_back(overlay: str) -> None:
    for kind, worker in subscribers(overlay).items():
        if worker["kind"] == "Service":
            at_once = int(reads(worker, list(manifests(overlay)))["WORKER_CONCURRENCY"])
            assert pod_of(worker)["containerConcurrency"] == at_once, kind
            most = int(worker["spec"]["template"]["metadata"]["annotations"]["autoscaling.knative.dev/max-scale"])
            parallelism = int(triggers(overlay)[kind]["metadata"]["annotations"][PARALLELISM])
            assert most * at_once <= parallelism <= MOST_PARALLELISM, kind


@pytest.mark.parametrize("overlay", MIXED)
def test_no_kind_changes_the_worker_of_another(overlay: str) -> None:
    ours, *components = MIXED[overlay]
    alone = {worker["metadata"]["name"]: worker for worker in workers(ours) + workers("kind-long-jobs")}
    if "long-jobs" not in components:
        alone |= {worker["metadata"]["name"]: worker for worker in workers(ours)}
    for worker in subscribers(overlay).values():
        assert shape(worker) == shape(alone[worker["metadata"]["name"]])


def shape(worker: Manifest) -> tuple[object, ...]:
    """What a kind may differ in, and an overlay does not change for all."""
    spec, template = pod_of(worker), worker["spec"].get("template", {}).get("metadata", {})
    [container] = spec["containers"]
    return spec.get("containerConcurrency"), template.get("annotations"), container["resources"], container["env"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_work_of_a_kind_is_there_and_its_settings_are_settings(kind: str) -> None:
    [worker] = [w for w in workers("kind") if w["metadata"]["name"] == f"worker-{kind}"]
    work = reads(worker, rendered("kind"))["JOB_WORK"]
    assert callable(api.find(work, 0))
    [own] = [m["data"] for m in of_kind("kind", "ConfigMap") if m["metadata"]["name"].startswith(f"kind-{kind}-")]
    assert own.keys() <= {"JOB_KIND", "JOB_WORK", *OF_A_KIND}


def test_the_page_about_kinds_names_the_settings_that_a_kind_may_have_otherwise() -> None:
    [row] = [line for line in (ROOT / "docs" / "work.md").read_text().splitlines() if "JOB_BACKOFF_SECONDS" in line]
    assert set(re.findall(r"`([A-Z_]+)`", row)) | {"WORKER_CONCURRENCY"} == OF_A_KIND


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_of_a_kind_with_three_lines_changed_is_another_kind(kind: str, tmp_path: Path) -> None:
    shutil.copytree(KNATIVE, tmp_path / "knative")
    ours, copy = (tmp_path / "knative" / "kinds" / name for name in (kind, "my-own"))
    shutil.copytree(ours, copy)
    for file, old, new in (
        ("kind.env", f"JOB_KIND={kind}\n", "JOB_KIND=my-own\n"),
        ("kind.env", "JOB_WORK=examples.", "JOB_WORK=my."),
        ("kustomization.yaml", f"name: worker-{kind}}}\n", "name: worker-my-own}\n"),
    ):
        text = (copy / file).read_text()
        assert text.count(old) == 1
        (copy / file).write_text(text.replace(old, new))
    differs = subprocess.run(["diff", "-r", ours, copy], capture_output=True, text=True, check=False).stdout
    assert len([line for line in differs.splitlines() if line.startswith("> ")]) == 3

    overlay = tmp_path / "knative" / "overlays" / "kind" / "kustomization.yaml"
    overlay.write_text(overlay.read_text().replace("components:\n", "components:\n  - ../../kinds/my-own\n"))
    made = build(overlay.parent)
    by_name = {m["metadata"]["name"]: m for m in made if is_worker(m)}
    assert by_name.keys() == {"worker", *(f"worker-{name}" for name in (*KINDS, "my-own"))}
    copied, original = by_name["worker-my-own"], by_name[f"worker-{kind}"]
    assert reads(copied, made)["JOB_WORK"].startswith("my.")
    assert pod_of(copied)["containers"][0]["resources"] == pod_of(original)["containers"][0]["resources"]


@pytest.mark.parametrize("overlay", ["kind", "kind-long-jobs"])
def test_one_machine_makes_the_same_workers_of_the_folders(overlay: str) -> None:
    """It reads them without kustomize."""
    folders = [on_one_machine.BASE, *on_one_machine.kinds(on_one_machine.KINDS)]
    if overlay.endswith("long-jobs"):
        folders.append(on_one_machine.COMPONENTS / "long-jobs")
    services = {service.name: service for service in on_one_machine.services(*folders) if service.kind}
    job_sinks = {job_sink.name: job_sink for job_sink in on_one_machine.job_sinks(*folders)}
    assert services.keys() | job_sinks.keys() == {worker["metadata"]["name"] for worker in workers(overlay)}
    for worker in workers(overlay):
        name = worker["metadata"]["name"]
        here = job_sinks[name] if worker["kind"] == "JobSink" else services[name]
        read = reads(worker, rendered(overlay))
        assert {setting: read[setting] for setting in here.env} == here.env, name
    there = {
        (m["metadata"]["name"], *sorted(m["spec"]["filter"]["attributes"].items())) for m in of_kind(overlay, "Trigger")
    }
    assert {(t.name, *sorted(t.attributes.items())) for t in on_one_machine.triggers(*folders)} == there


def test_a_kind_whose_work_is_a_service_has_it_in_the_pod_of_its_worker() -> None:
    found = build(ROOT / "examples" / "in-node")
    [settings] = [m["data"] for m in found if m["kind"] == "ConfigMap" and "K_SINK" in m["data"]]
    assert Counter(settings["JOB_KINDS"].split()) == Counter(["default", "sum", *KINDS])
    [worker] = [m for m in found if m["metadata"]["name"] == "worker-sum" and is_worker(m)]
    ours, service = pod_of(worker)["containers"]
    work = urlsplit(reads(worker, found)["JOB_WORK"])
    assert (work.hostname, str(work.port)) == ("127.0.0.1", service["command"][-1])
    assert service["securityContext"] == ours["securityContext"] | {"runAsUser": 1000}
    assert "ports" not in service, "Knative lets one container of a pod have one"
    [files] = [m["data"] for m in found if m["metadata"]["name"] == "sum-service"]
    [volume] = [v for v in pod_of(worker)["volumes"] if v["name"] == service["volumeMounts"][0]["name"]]
    assert volume["configMap"]["name"] == "sum-service"
    assert service["command"][1] == f"{service['volumeMounts'][0]['mountPath']}/{next(iter(files))}"
    assert {pod_of(m)["containers"][0]["image"] for m in found if is_worker(m)} == {"kind.local/knative-jobs:dev"}
