"""The settings, read from the environment once, at start. No other module reads the environment.

A field's name in capitals is the variable's name; an unset or empty variable means the default. A value that
does not fit stops the start with a message that names the variable.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any, get_args, get_type_hints

from knative_jobs.runtime import job_kind, key_prefix, public_url, redis_url, work_address
from knative_jobs.runtime.job_status import ENDINGS, Status

# The least value that makes sense, stated beside each number.
AtLeast0 = Annotated[float, 0]
AtLeast1 = Annotated[int, 1]
WholeAtLeast0 = Annotated[int, 0]
Positive = Annotated[float, 0.1]

# A text, and what raises a ValueError where it cannot be used.
RedisUrl = Annotated[str, redis_url.parse]
KeyPrefix = Annotated[str, key_prefix.check]
PublicUrl = Annotated[str, public_url.check]
Work = Annotated[str, work_address.check]

Statuses = frozenset[Status]

DEFAULT_KIND = "default"
"""The kind of a job that names none."""

Kind = Annotated[str, job_kind.check]
Kinds = tuple[str, ...]

_SECRET = {"REDIS_PASSWORD", "REDIS_SENTINEL_PASSWORD", "API_TOKENS"}


class InvalidSettingError(SystemExit):
    """A variable has a value that cannot be used. As a SystemExit it ends the start, whatever the server."""


@dataclass(frozen=True)
class Settings:
    """Durations are in seconds."""

    redis_url: RedisUrl = "redis://127.0.0.1:6379/0"
    """Where the state is: one server, the Sentinels that know which server is the primary, or a Redis Cluster. See
    `redis_url`."""
    redis_username: str = ""
    """The Redis user of this kind of function. Empty: the user `default`."""
    redis_password: str = ""
    """Kept apart from the URL, so that a Secret can hold it and no log shows it."""
    redis_sentinel_username: str = ""
    """The user of the Sentinels themselves, which have users of their own. Empty: the user `default`."""
    redis_sentinel_password: str = ""
    """Its password. Empty: they ask for none."""
    redis_wait_replicas: WholeAtLeast0 = 0
    """A change is acknowledged once so many replicas of Redis have it, so that a failover does not lose it."""
    redis_wait_fsync: bool = False
    """A change is acknowledged once it is on the disk of the primary, and of so many replicas. Needs Redis 7.2."""
    redis_key_prefix: KeyPrefix = ""
    """What the name of every key, and of every channel, begins with. Empty: they are as in `store/lua/prelude.lua`.
    In a Redis Cluster it has a hash tag, so that all keys are on one node. See `key_prefix`."""
    k_sink: str = ""
    """The Broker's address, named as a Knative SinkBinding names it. Empty: no event is emitted."""
    k_sink_token_file: str = ""
    """A file with the OIDC token that goes with each event. Empty: none goes."""
    event_source: str = "/jobs"
    """The source of all events: it names this installation among others."""
    event_dataschema: str = ""
    """The address of the schema of their data. Empty: they do not say."""
    job_events: Statuses = frozenset(ENDINGS.values())
    """The statuses with which a job ends and is announced for it. JOB_EVENTS names them with the words of ENDINGS."""
    public_url: PublicUrl = ""
    """The one address that all routes are behind, for the links in answers. Empty: each Service has a host of its own
    where Knative runs it, elsewhere all are on the host that was asked for."""
    trust_proxy: bool = False
    """Whether requests come through a proxy that says in `Forwarded` or `X-Forwarded-Proto` how the client came, over
    http or https. Links then have that scheme. A client that can send such a header past the proxy changes the links of
    its own answers."""
    api_tokens: str = ""
    """Who may call the public endpoints: see `auth`. Empty: anybody."""
    job_kinds: Kinds = (DEFAULT_KIND,)
    """The kinds of job that submissions take, with spaces between them. A worker of each must be there."""
    jobsink_kinds: Kinds = ()
    """Those of them whose subscriber is a JobSink; each other one's is a worker Service."""
    job_kind: Kind = DEFAULT_KIND
    """The kind of the jobs that this worker does. It claims no other."""
    job_work: Work = ""
    """The user's own work: `package.module:function`, or the address of a service that does it, with http: or https:.
    Empty: the stand-in that waits. An address may have a user and a password, which no log shows."""
    worker_concurrency: AtLeast1 = 1
    """How many jobs a worker does at once."""
    job_seconds: AtLeast0 = 1
    """How long the stand-in works on a job."""
    work_memory_mib: WholeAtLeast0 = 0
    """The most memory that the process of the work may have, and each that it starts, in MiB; on Linux. 0: any."""
    job_lease_seconds: Positive = 15
    """A worker that has not been heard of for so long has lost its job to another."""
    job_timeout_seconds: Positive = 300
    """The longest one attempt may take. A job may say less for itself."""
    job_max_attempts: AtLeast1 = 3
    """So many attempts may go wrong before the job is failed. A job may say less for itself."""
    job_max_running: Annotated[int, 0] = 0
    """So many jobs of a kind may be in progress at once, over all workers and Revisions. 0: any number."""
    job_backoff_seconds: AtLeast0 = 2
    """The wait before the second attempt; it doubles with each further one."""
    job_retention_seconds: Positive = 7 * 24 * 3600
    """How long a job that has ended is kept. A job may say less for itself."""
    job_log_bytes: WholeAtLeast0 = 64 * 1024
    """How many bytes of what the work prints and logs are kept with its job: the last ones. 0: none."""
    max_queued_jobs: AtLeast1 = 100_000
    """Submissions of a kind are refused while so many jobs of it are due."""
    jobsink_max_pending: AtLeast1 = 32
    """How many jobs of each kind whose subscriber is a JobSink may be announced and not claimed, so how many Kubernetes
    Jobs may be about to begin."""
    worker_drain_seconds: AtLeast0 = 30
    """How long a worker, once awake, goes on claiming due jobs within one request."""
    worker_grace_seconds: AtLeast0 = 20
    """How long a running job may go on after SIGTERM before it is handed back. Where most jobs take longer, they are
    begun again whenever their worker is scaled down; see `store.state.MAX_RELEASES`."""
    worker_ip: str = ""
    """The worker's address as the record shows it. Empty: that of the interface that reaches Redis."""
    k_service: str = ""
    """The Service's name, given by Knative. Where it is set, logs are JSON."""
    function_target: str = ""
    """The function that this process serves. Empty: the one that the Service is named after, `-` for `_`."""
    function_source: str = ""
    """The file that the function is in. Empty: the file of its name in `functions/`."""
    sweep_seconds: AtLeast0 = 57
    """How long one sweep keeps watching while jobs wait or run. The next one begins with the next minute."""
    otel_exporter_otlp_endpoint: str = ""
    """The collector that spans are sent to. Empty: none is made."""
    otel_exporter_otlp_traces_endpoint: str = ""
    """The same for traces alone, with its path; it comes first. OpenTelemetry reads both itself, and more."""


@cache
def settings() -> Settings:
    """Return the settings of this process.

    Raises:
        InvalidSettingError: a variable's value cannot be used.
    """
    hints = get_type_hints(Settings, include_extras=True)
    given = {f.name: os.environ.get(f.name.upper(), "") for f in fields(Settings)}
    read = Settings(**{name: _parse(name, hints[name], text) for name, text in given.items() if text})
    if redis_url.parse(read.redis_url).is_cluster and not key_prefix.has_hash_tag(read.redis_key_prefix):
        raise InvalidSettingError(
            "REDIS_KEY_PREFIX must have a hash tag, as {jobs}. has, for REDIS_URL is a Redis Cluster"
        )
    if job_kind.BULK in read.job_kinds:
        raise InvalidSettingError(f"JOB_KINDS has {job_kind.BULK}, which is the kind of this API's own jobs")
    return read


def work_environment(**changes: str) -> dict[str, str]:
    """Return the environment for the process that does the user's work: this process's environment without secrets."""
    return {name: value for name, value in os.environ.items() if name not in _SECRET} | changes


def _parse(name: str, hint: type, text: str) -> Any:
    if hint is str:
        return text
    if hint is bool:
        return _flag(name, text)
    if hint == Statuses:
        return _statuses(name, text)
    if hint == Kinds:
        return tuple(dict.fromkeys(_checked(name, job_kind.check, word) for word in text.replace(",", " ").split()))
    number, least = get_args(hint)
    if number is str:
        return _checked(name, least, text)
    try:
        value: float = number(text)
    except ValueError:
        value = least - 1
    if not least <= value < float("inf"):
        kind = "a whole number" if number is int else "a number"
        raise InvalidSettingError(f"{name.upper()}={text!r} must be {kind} of at least {least}")
    return value


def _checked(name: str, check: Callable[[str], object], text: str) -> str:
    try:
        check(text)
    except ValueError as error:
        raise InvalidSettingError(f"{name.upper()} {error}") from None
    return text


def _flag(name: str, text: str) -> bool:
    if text not in ("0", "1", "false", "true"):
        raise InvalidSettingError(f"{name.upper()}={text!r} must be 0 or 1, false or true")
    return text in ("1", "true")


def _statuses(name: str, text: str) -> Statuses:
    words = text.replace(",", " ").split()
    if words == ["none"]:
        return frozenset()
    if not words or not ENDINGS.keys() >= set(words):
        known = f"{', '.join(ENDINGS)}, or none"
        raise InvalidSettingError(f"{name.upper()}={text!r} must be words of: {known}")
    return frozenset(ENDINGS[word] for word in words)
