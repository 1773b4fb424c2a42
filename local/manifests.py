"""What `knative/base`, kinds of job and components declare: Services, Triggers, PingSources and JobSinks.

Only what matters on one machine is read. Of what kustomize does with the files, this does three things: it follows
`resources` and `components` to other folders, makes the worker of a kind from `knative/worker`, and takes a manifest in
a component that has the kind and the name of an earlier one for a strategic merge patch of it.
"""

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import isodate
import yaml

from knative_jobs.runtime import job_kind
from knative_jobs.runtime.settings import DEFAULT_KIND
from local import FUNCTIONS, ROOT

BASE = ROOT / "knative" / "base"
COMPONENTS = ROOT / "knative" / "components"
KINDS = ROOT / "knative" / "kinds"
DOMAIN = "default.svc.cluster.local"
"""Of the addresses of Services, as in a cluster. On one machine only the activator knows them."""
JOBSINK_HOST = "job-sink.knative-eventing.svc.cluster.local"
"""Where every JobSink of a cluster is, each at the path /NAMESPACE/NAME."""
KIND = "kind.env"
"""In the folder of a kind: its name, and what it changes in the settings for its workers."""
DEFAULT_DELIVERY = {"retry": 10, "backoffPolicy": "exponential", "backoffDelay": "PT0.2S"}
IMAGE = "knative-jobs"
TRANSFORMER = "builtin"
"""What kustomize does with manifests, and no manifest itself."""
Manifest = dict[str, Any]


class ManifestError(SystemExit):
    """A manifest says something that cannot be done on one machine. As a SystemExit it ends the start."""


class Service(NamedTuple):
    """A function, as a Knative Service declares it."""

    name: str
    target: str
    source: Path
    env: dict[str, str]
    redis_user: str
    """Who it is in Redis. Empty: it does not call Redis."""
    public: bool
    """False: cluster-local, so that only a Trigger or a PingSource calls it."""
    concurrency: int
    """How many requests one instance gets at a time."""
    timeout_s: float
    """How long one request may last, in seconds; 600 is the most that Knative allows."""
    kind: Mapping[str, str] = MappingProxyType({})
    """Of a worker: what its kind says in its kind.env."""

    @property
    def server(self) -> dict[str, str]:
        """The settings of the server that calls it."""
        return {name: value for name, value in self.env.items() if name.startswith("GRANIAN_")}


class Delivery(NamedTuple):
    """How hard the Broker tries, see https://knative.dev/docs/eventing/event-delivery/."""

    retry: int
    backoff_policy: str
    backoff_delay_s: float
    dead_letter_sink: str = ""


class Trigger(NamedTuple):
    """An event that has all of `attributes` goes to the address `subscriber`."""

    name: str
    attributes: dict[str, str]
    subscriber: str
    delivery: Delivery


class PingSource(NamedTuple):
    """An event with `data`, sent to the address `sink` whenever the cron `schedule` says."""

    name: str
    schedule: str
    timezone: str
    """Empty: UTC."""
    content_type: str
    data: str
    sink: str


class JobSink(NamedTuple):
    """A subscriber that starts a process for each event."""

    name: str
    command: list[str]
    env: dict[str, str]
    backoff_limit: int
    """How often a process that failed is started again."""
    ttl_s: float
    """For how many seconds the JobSink remembers an event after its process has ended."""
    redis_user: str = ""
    """Who it is in Redis. Empty: it does not call Redis."""
    kind: Mapping[str, str] = MappingProxyType({})
    """What its kind says in its kind.env."""


def kinds(folder: Path) -> list[Path]:
    """Return the folders of kinds in a folder.

    Raises:
        ManifestError: two have the same name, or one has none that a kind can have.
    """
    folders = sorted(file.parent for file in folder.glob(f"*/{KIND}"))
    if not folders:
        raise ManifestError(f"{folder} has no folder with a {KIND}, as a kind of job is one")
    names = [_environment(folder / KIND).get("JOB_KIND", "") for folder in folders]
    for name, at in zip(names, folders, strict=True):
        try:
            job_kind.check(name)
        except ValueError as error:
            raise ManifestError(f"JOB_KIND of {at / KIND} {error}") from error
        if name == DEFAULT_KIND or names.count(name) > 1:
            raise ManifestError(f"JOB_KIND={name} of {at / KIND} is there already")
    return folders


def services(base: Path = BASE, *components: Path) -> list[Service]:
    """Return every Knative Service below `base`, and below the folders of components."""
    found = _manifests((base, *components), "serving.knative.dev", "Service")
    return [_service(manifest) for manifest in found if _is_function(manifest)]


def triggers(base: Path, *components: Path) -> list[Trigger]:
    """Return every Trigger there."""
    folders = (base, *components)
    brokers = {m["metadata"]["name"]: m.get("spec", {}) for m in _manifests(folders, "eventing.knative.dev", "Broker")}
    return [_trigger(m, brokers) for m in _manifests(folders, "eventing.knative.dev", "Trigger")]


def ping_sources(base: Path, *components: Path) -> list[PingSource]:
    """Return every PingSource there."""
    folders = (base, *components)
    return [_ping_source(m) for m in _manifests(folders, "sources.knative.dev", "PingSource")]


def job_sinks(base: Path, *components: Path) -> list[JobSink]:
    """Return every JobSink there."""
    return [_job_sink(m) for m in _manifests((base, *components), "sinks.knative.dev", "JobSink")]


def components() -> list[str]:
    """Return the names of those components of which there is something to run on one machine."""
    folders = [folder for folder in COMPONENTS.iterdir() if folder.is_dir()]
    return sorted(f.name for f in folders if services(f) or triggers(f) or ping_sources(f))


def _manifests(folders: Iterable[Path], group: str, kind: str) -> Iterable[Manifest]:
    found: dict[str, Manifest] = {}
    for manifest in itertools.chain.from_iterable(map(_documents, folders)):
        if manifest.get("kind") == kind and manifest.get("apiVersion", "").startswith(group + "/"):
            name = manifest["metadata"]["name"]
            found[name] = _merged(found.get(name, {}), manifest)
            if manifest.get("$patch") == "delete":
                del found[name]
    return found.values()


def _merged(manifest: Any, patch: Any) -> Any:
    """Return the manifest with a strategic merge patch applied, which replaces everything but maps."""
    if not isinstance(manifest, dict) or not isinstance(patch, dict):
        return patch
    return manifest | {name: _merged(manifest.get(name), value) for name, value in patch.items()}


@cache
def _documents(folder: Path) -> list[Manifest]:
    found = []
    for path in sorted(folder.rglob("*.yaml")):
        try:
            manifests = [m for m in yaml.safe_load_all(path.read_text()) if isinstance(m, dict)]
        except yaml.YAMLError as error:
            raise ManifestError(f"{path} is not YAML: {error}") from error
        if path.name != "kustomization.yaml":
            found += [m for m in manifests if m.get("apiVersion") != TRANSFORMER]
            continue
        folders = itertools.chain.from_iterable(_elsewhere(manifest, path.parent, folder) for manifest in manifests)
        taken = list(itertools.chain.from_iterable(map(_documents, folders)))
        kind = path.with_name(KIND)
        found += _of_kind(taken, kind) if kind.exists() else taken
    return found


def _elsewhere(kustomization: Manifest, at: Path, folder: Path) -> Iterator[Path]:
    """Return the folders that a kustomization takes from outside of `folder`; a remote one is taken from here."""
    for entry in kustomization.get("resources", []) + kustomization.get("components", []):
        remote = entry.partition("?")[0].rpartition("://")[2].partition("//")[2]
        taken = ROOT / remote if remote else (at / entry).resolve()
        if taken.is_dir() and not taken.is_relative_to(folder.resolve()):
            yield taken


def _of_kind(templates: list[Manifest], file: Path) -> list[Manifest]:
    """Return what `knative/worker` says for any kind as it is for that of a file, as kustomize's `replacements` do."""
    env = _environment(file)
    kind = env["JOB_KIND"]
    name = "worker" if kind == DEFAULT_KIND else f"worker-{kind}"
    [subscriber, *others] = [template["kind"] for template in templates if template["kind"] != "Trigger"] or [""]
    if not subscriber or others:
        raise ManifestError(f"The kustomization beside {file} must take knative/worker/as-service or as-jobsink")
    if subscriber == "Service" and not re.fullmatch(r"[1-9][0-9]*", env.get("WORKER_CONCURRENCY", "")):
        raise ManifestError(f"WORKER_CONCURRENCY in {file} must be a whole number of at least 1")
    own: dict[str, Manifest] = {
        "Trigger": {
            "spec": {
                "filter": {"attributes": {"jobkind": kind}},
                "subscriber": {"ref": {"kind": subscriber, "name": name}},
            }
        },
        subscriber: {KIND: env},
    }
    return [_merged(_merged(template, {"metadata": {"name": name}}), own[template["kind"]]) for template in templates]


def _environment(file: Path) -> dict[str, str]:
    pairs = (line.partition("=") for line in file.read_text().splitlines() if "=" in line and not line.startswith("#"))
    return {name: value for name, _, value in pairs}


def _is_function(manifest: Manifest) -> bool:
    """Tell whether a Service runs our image. Others are for a cluster alone."""
    [container] = manifest["spec"]["template"]["spec"]["containers"]
    return bool(container.get("image", IMAGE) == IMAGE)


def _service(manifest: Manifest) -> Service:
    name = manifest["metadata"]["name"]
    spec = manifest["spec"]["template"]["spec"]
    kind = manifest.get(KIND, {})
    env = kind | {e["name"]: str(e["value"]) for e in spec["containers"][0].get("env", []) if "value" in e}
    target = env.get("FUNCTION_TARGET", name.replace("-", "_"))
    labels = manifest["metadata"].get("labels", {})
    return Service(
        name,
        target,
        ROOT / env.get("FUNCTION_SOURCE", FUNCTIONS / f"{target}.py"),
        env,
        redis_user=labels.get("knative-jobs.dev/redis-user", ""),
        public=labels.get("networking.knative.dev/visibility") != "cluster-local",
        concurrency=spec.get("containerConcurrency") or 10,
        timeout_s=spec.get("timeoutSeconds", 600),
        kind=kind,
    )


def _trigger(manifest: Manifest, brokers: dict[str, Manifest]) -> Trigger:
    name, spec = manifest["metadata"]["name"], manifest["spec"]
    if "filters" in spec:
        raise ManifestError(f"Trigger {name} has spec.filters; on one machine only spec.filter.attributes is known")
    broker = brokers.get(spec.get("broker", "default"), {})
    given = DEFAULT_DELIVERY | (spec.get("delivery") or broker.get("delivery") or {})
    delivery = Delivery(
        given["retry"],
        given["backoffPolicy"],
        isodate.parse_duration(given["backoffDelay"]).total_seconds(),
        _address(name, given.get("deadLetterSink", {})),
    )
    attributes = spec.get("filter", {}).get("attributes", {})
    return Trigger(name, attributes, _address(name, spec["subscriber"]), delivery)


def _ping_source(manifest: Manifest) -> PingSource:
    name, spec = manifest["metadata"]["name"], manifest["spec"]
    return PingSource(
        name,
        spec["schedule"],
        spec.get("timezone", ""),
        spec.get("contentType", "application/json"),
        spec.get("data", ""),
        _address(name, spec["sink"]),
    )


def _job_sink(manifest: Manifest) -> JobSink:
    spec = manifest["spec"]["job"]["spec"]
    container = spec["template"]["spec"]["containers"][0]
    kind = manifest.get(KIND, {})
    env = kind | {e["name"]: str(e["value"]) for e in container.get("env", []) if "value" in e}
    limit, ttl_s = spec.get("backoffLimit", 6), spec.get("ttlSecondsAfterFinished", float("inf"))
    user = env.get("REDIS_USERNAME", "")
    return JobSink(manifest["metadata"]["name"], container["command"], env, limit, ttl_s, user, kind)


def _address(name: str, destination: Manifest) -> str:
    ref, uri = destination.get("ref"), destination.get("uri", "")
    if not ref:
        return str(uri)
    if ref.get("kind") == "JobSink":
        return f"http://{JOBSINK_HOST}/default/{ref['name']}"
    if ref.get("kind") != "Service":
        why = "on one machine only a Service or a JobSink can be reached"
        raise ManifestError(f"{name} sends to a {ref.get('kind')}; {why}")
    return f"http://{ref['name']}.{DOMAIN}{uri}"
