"""What is read of the Services, Triggers and PingSources."""

from pathlib import Path

import pytest

from local import FUNCTIONS, manifests
from local.manifests import DOMAIN, JOBSINK_HOST, Delivery, ManifestError

SERVICES = """
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: jobs-status, labels: {knative-jobs.dev/redis-user: reader}}
spec: {template: {spec: {containers: [{env: [
  {name: LIMIT, value: "5"}, {name: PASSWORD, valueFrom: {secretKeyRef: {name: redis, key: password}}}]}]}}}
---
apiVersion: v1
kind: Service
metadata: {name: redis}
---
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: worker, labels: {networking.knative.dev/visibility: cluster-local}}
spec: {template: {spec: {containerConcurrency: 3, timeoutSeconds: 60, containers: [{env: [
  {name: FUNCTION_TARGET, value: run}, {name: FUNCTION_SOURCE, value: functions/runner.py}]}]}}}
"""
TRIGGER = """
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: worker}
spec:
  broker: default
  filter: {attributes: {type: submitted}}
  subscriber: {ref: {kind: Service, name: worker}}
"""
DELIVERY = """
  delivery: {retry: 3, backoffPolicy: linear, backoffDelay: PT1.5S, deadLetterSink: {uri: "http://elsewhere/"}}
"""
BROKER = """
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {name: default}
spec: {delivery: {retry: 1}}
"""


def test_services_are_found_in_every_folder_with_what_they_say(tmp_path: Path) -> None:
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "services.yaml").write_text(SERVICES)
    status, worker = manifests.services(tmp_path)
    assert (status.name, status.target, status.source) == ("jobs-status", "jobs_status", FUNCTIONS / "jobs_status.py")
    assert (status.public, status.env, status.redis_user) == (True, {"LIMIT": "5"}, "reader")
    assert (worker.target, worker.source, worker.public) == ("run", FUNCTIONS / "runner.py", False)
    assert worker.redis_user == ""
    assert (worker.concurrency, worker.timeout_s) == (3, 60)


@pytest.mark.parametrize(
    ("text", "delivery"),
    [
        (TRIGGER, Delivery(10, "exponential", 0.2)),
        (TRIGGER + "---" + BROKER, Delivery(1, "exponential", 0.2)),
        (TRIGGER + DELIVERY + "---" + BROKER, Delivery(3, "linear", 1.5, "http://elsewhere/")),
    ],
    ids=["default", "of the Broker", "of the Trigger"],
)
def test_a_trigger_says_what_goes_where_and_how(tmp_path: Path, text: str, delivery: Delivery) -> None:
    (tmp_path / "trigger.yaml").write_text(text)
    [trigger] = manifests.triggers(tmp_path)
    assert (trigger.attributes, trigger.subscriber) == ({"type": "submitted"}, f"http://worker.{DOMAIN}")
    assert trigger.delivery == delivery


def test_a_ping_source_says_what_is_sent_when(tmp_path: Path) -> None:
    (tmp_path / "ping.yaml").write_text("""
apiVersion: sources.knative.dev/v1
kind: PingSource
metadata: {name: sweep}
spec: {schedule: "* * * * *", data: "{}", sink: {ref: {kind: Service, name: sweeper}}}
""")
    [ping] = manifests.ping_sources(tmp_path)
    assert (ping.schedule, ping.data, ping.sink) == ("* * * * *", "{}", f"http://sweeper.{DOMAIN}")


def test_a_component_adds_to_the_base(tmp_path: Path) -> None:
    for name, text in {"base": BROKER + "---" + SERVICES, "component": TRIGGER}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "all.yaml").write_text(text)
    base, component = tmp_path / "base", tmp_path / "component"
    assert manifests.services(base, component) == manifests.services(base)
    [trigger] = manifests.triggers(base, component)
    assert trigger.delivery.retry == 1, "of the base's Broker"
    assert manifests.components() == ["chain", "long-jobs", "recurring", "webhook"], (
        "the others have nothing that runs on one machine"
    )


def test_a_component_patches_the_base(tmp_path: Path) -> None:
    patch = {
        "trigger.yaml": """
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: worker}
spec: {subscriber: {ref: {apiVersion: sinks.knative.dev/v1alpha1, kind: JobSink, name: worker}}}
""",
        "no-service.yaml": """
$patch: delete
apiVersion: serving.knative.dev/v1
kind: Service
metadata: {name: worker}
""",
    }
    for folder, files in {"base": {"all.yaml": TRIGGER + "---" + SERVICES}, "component": patch}.items():
        (tmp_path / folder).mkdir()
        for name, text in files.items():
            (tmp_path / folder / name).write_text(text)
    base, component = tmp_path / "base", tmp_path / "component"
    [trigger] = manifests.triggers(base, component)
    assert (trigger.attributes, trigger.subscriber) == ({"type": "submitted"}, f"http://{JOBSINK_HOST}/default/worker")
    assert [service.name for service in manifests.services(base, component)] == ["jobs-status"]
    assert [service.name for service in manifests.services(base)] == ["jobs-status", "worker"]


def test_a_job_sink_says_what_runs_and_how_often() -> None:
    [job_sink] = manifests.job_sinks(manifests.BASE, manifests.COMPONENTS / "long-jobs")
    assert job_sink.command == ["python", "-m", "knative_jobs.server.jobsink"]
    assert job_sink.env == {
        "JOB_KIND": "default",
        "JOB_TIMEOUT_SECONDS": "86400",
        "REDIS_USERNAME": "worker",
        "WORKER_GRACE_SECONDS": "20",
    }
    assert (job_sink.backoff_limit, job_sink.ttl_s) == (3, 600)


def kind(
    folder: Path, settings: str, takes: str = "https://git.example/jobs.git//knative/worker/as-service?ref=v1"
) -> Path:
    """The folder of a kind, in a repository of its own."""
    folder.mkdir(parents=True)
    (folder / "kind.env").write_text(settings)
    (folder / "kustomization.yaml").write_text(f"{{kind: Component, components: ['{takes}']}}")
    return folder


@pytest.mark.parametrize(
    "takes",
    [
        "https://git.example/jobs.git//knative/worker/as-service?ref=v1",
        "git.example/jobs//knative/worker/as-service",
        str(manifests.KINDS.parent / "worker" / "as-service"),
    ],
)
def test_a_kind_takes_its_worker_from_this_repository_by_its_address_or_by_its_path(tmp_path: Path, takes: str) -> None:
    folder = kind(tmp_path / "resize", "JOB_KIND=resize\nWORKER_CONCURRENCY=1\n", takes)
    assert [service.name for service in manifests.services(folder)] == ["worker-resize"]


def test_a_kind_is_a_folder_that_makes_a_worker_and_a_trigger_of_its_own(tmp_path: Path) -> None:
    resize = kind(tmp_path / "resize", "# why\nJOB_KIND=resize\nJOB_WORK=work:resize\nWORKER_CONCURRENCY=8\n")
    assert manifests.kinds(tmp_path) == [resize]
    [worker] = manifests.services(resize)
    [default] = [service for service in manifests.services() if service.name == "worker"]
    own = {"JOB_KIND": "resize", "JOB_WORK": "work:resize", "WORKER_CONCURRENCY": "8"}
    assert worker == default._replace(name="worker-resize", kind=own, env=default.env | own)
    [trigger] = manifests.triggers(resize)
    [of_default] = [trigger for trigger in manifests.triggers(manifests.BASE) if trigger.name == "worker"]
    assert trigger.attributes == of_default.attributes | {"jobkind": "resize"}
    assert trigger.subscriber == f"http://worker-resize.{DOMAIN}"
    assert trigger.delivery == of_default.delivery


def test_a_kind_may_have_a_job_sink(tmp_path: Path) -> None:
    at = "https://git.example/jobs//knative/worker/as-jobsink"
    long = kind(tmp_path / "long", "JOB_KIND=long\nJOB_TIMEOUT_SECONDS=7200\n", at)
    assert manifests.services(long) == []
    [job_sink] = manifests.job_sinks(long)
    assert (job_sink.name, job_sink.kind) == ("worker-long", {"JOB_KIND": "long", "JOB_TIMEOUT_SECONDS": "7200"})
    [trigger] = manifests.triggers(long)
    assert (trigger.attributes["jobkind"], trigger.subscriber) == ("long", f"http://{JOBSINK_HOST}/default/worker-long")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ([], "no folder with a kind.env"),
        (["JOB_WORK=work:run"], "a kind is 1 to 63 small letters"),
        (["JOB_KIND=Resize"], "'Resize'"),
        (["JOB_KIND=default"], "JOB_KIND=default .* is there already"),
        (["JOB_KIND=resize", "JOB_KIND=resize"], "JOB_KIND=resize .* is there already"),
    ],
    ids=["none", "no name", "no such name", "that of the base", "the same name twice"],
)
def test_a_folder_that_is_no_kind_is_refused(tmp_path: Path, settings: list[str], said: str) -> None:
    for number, text in enumerate(settings):
        kind(tmp_path / str(number), text)
    with pytest.raises(ManifestError, match=said):
        manifests.kinds(tmp_path)


@pytest.mark.parametrize(
    ("settings", "takes", "said"),
    [
        ("JOB_KIND=resize", "https://git.example/jobs//knative/worker/service", "WORKER_CONCURRENCY"),
        (
            "JOB_KIND=resize\nWORKER_CONCURRENCY=some",
            "../../../worker/as-service",
            "must take knative/worker/as-service",
        ),
        (
            "JOB_KIND=resize\nWORKER_CONCURRENCY=0",
            "https://git.example//jobs//knative/worker",
            "as-service or as-jobsink",
        ),
    ],
)
def test_a_kind_without_a_worker_is_refused(tmp_path: Path, settings: str, takes: str, said: str) -> None:
    folder = kind(tmp_path / "resize", settings, takes)
    with pytest.raises(ManifestError, match=said):
        manifests.services(folder)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (TRIGGER.replace("filter:", "filters:"), "filters"),
        (TRIGGER.replace("kind: Service", "kind: Channel"), "Channel"),
        ("a: b: c", "not YAML"),
    ],
)
def test_what_cannot_be_done_on_one_machine_is_refused(tmp_path: Path, wrong: str, said: str) -> None:
    (tmp_path / "wrong.yaml").write_text(wrong)
    with pytest.raises(ManifestError, match=said):
        manifests.triggers(tmp_path)
