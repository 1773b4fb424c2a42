"""What a key costs a submission, and what it notices of a bulk operation meanwhile. Of `ours` alone."""

import http.client
import json
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from bench import ENVIRONMENTS, HOST, load, running
from bench.fill import copy
from bench.measures import MANY, Effort
from bench.report import BULK, RETRY, SUBMIT, WITH_KEY, WITHOUT, Sample
from bench.running import SUBMISSION
from local import FUNCTIONS, ports

JOBS = 100_000
KEYED = load.post("/jobs", {"start": "1", "end": "2", "key": "customer-17"})
FUNCTIONS_OF_BULK = ("jobs", "cancel_job", "retry_jobs", "bulk_operations")


def bulk(effort: Effort) -> Iterator[Sample]:
    """Submissions without a key, with one, and while 100,000 jobs are retried. No worker and no Broker is there."""
    redis_port, *function_ports = (ports.free(HOST) for _ in range(1 + len(FUNCTIONS_OF_BULK)))
    port = dict(zip(FUNCTIONS_OF_BULK, function_ports, strict=True))
    with (
        tempfile.TemporaryDirectory(dir=ENVIRONMENTS) as folder,
        running.redis_alone(redis_port, Path(folder)) as store,
    ):
        more = {"MAX_QUEUED_JOBS": "10000000"}
        started = [
            running.function(name, FUNCTIONS / f"{name}.py", port[name], redis_port, False, **more) for name in port
        ]
        with started[0], started[1], started[2], started[3]:
            for each in function_ports:
                running.until(lambda each=each: running.answers(each))  # type: ignore[misc]
            for name, submission in ((WITHOUT, SUBMISSION), (WITH_KEY, KEYED)):
                load.so_many(1000, port["jobs"], [submission], MANY)
                yield from _samples(name, load.for_seconds(effort.load_s, port["jobs"], [submission], MANY))
            (job_id,) = load.so_many(1, port["jobs"], [SUBMISSION], 1).ids()
            _post(port["cancel_job"], f"/cancel_job?job_id={job_id}")
            copy(store, job_id, 1, JOBS - 1)
            operation = json.loads(_post(port["retry_jobs"], "/retry_jobs?status=cancelled"))["job-id"]
            seconds: list[float] = []
            retrying = threading.Thread(target=lambda: seconds.append(_do(port["bulk_operations"], operation)))
            retrying.start()
            found = []
            while retrying.is_alive():
                found.append(load.for_seconds(effort.load_s, port["jobs"], [SUBMISSION], MANY))
            retrying.join()
            if store.zcard("jobs.cancelled"):
                raise RuntimeError("the operation has left jobs")
            latencies = sorted(latency for result in found for latency in result.latencies)
            bodies = [body for result in found for body in result.bodies]
            meanwhile = load.Result(0, sum(result.seconds for result in found), latencies, bodies)
            yield from _samples(RETRY, meanwhile)
            yield Sample(f"{JOBS:,} jobs retried", RETRY, seconds[0], "s", BULK)


def _samples(name: str, result: load.Result) -> Iterator[Sample]:
    if result.refused:
        raise RuntimeError(f"{name}: {result.refused} submissions were refused")
    submit = SUBMIT.format(MANY)
    yield Sample(submit, name, result.rate, "requests/s", BULK)
    yield Sample(f"{submit}, p50", name, result.percentile(50) * 1e3, "ms", BULK)
    yield Sample(f"{submit}, p99", name, result.percentile(99) * 1e3, "ms", BULK)


def _do(port: int, operation: str) -> float:
    """Return the seconds that the operation takes, as the Broker has it done."""
    event = {"id": operation, "source": "/bench", "type": "dev.knative-jobs.job.submitted", "specversion": "1.0"}
    headers = {f"ce-{name}": value for name, value in (event | {"subject": operation}).items()}
    began_at = time.monotonic()
    _post(port, "/", headers)
    return time.monotonic() - began_at


def _post(port: int, path: str, headers: dict[str, str] | None = None) -> bytes:
    connection = http.client.HTTPConnection(HOST, port, timeout=load.ANSWER_SECONDS)
    connection.request("POST", path, headers=headers or {})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    if answer.status >= 300:
        raise RuntimeError(f"{path} was answered {answer.status}: {body[:200]!r}")
    return body
