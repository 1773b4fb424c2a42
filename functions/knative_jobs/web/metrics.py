"""The metrics of all jobs. The only module that knows prometheus_client.

They are read from Redis each time, so every instance of the function tells the same: nothing here is of one process.
"""

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from knative_jobs.runtime.job_status import Status
from knative_jobs.store import state

_COUNTERS = {
    Status.SUBMITTED: ("knative_jobs_submitted", "Jobs submitted."),
    "started": ("knative_jobs_started", "Attempts begun."),
    Status.COMPLETE: ("knative_jobs_completed", "Jobs that became complete."),
    Status.FAILED: ("knative_jobs_failed", "Jobs that became failed."),
    Status.CANCELLED: ("knative_jobs_cancelled", "Jobs that became cancelled."),
    "retried": ("knative_jobs_retried", "Attempts that went wrong and were due again, and retries asked for."),
    "continued": ("knative_jobs_continued", "Attempts that the work handed back with a newer checkpoint."),
    "duplicates": (
        "knative_jobs_duplicates",
        "Events of jobs that were not waiting: delivered again, or another worker had come for the job already.",
    ),
    "dropped": (
        "knative_jobs_events_dropped",
        "Events of submitted jobs that were dropped, as too many were on their way.",
    ),
    "lease-losses": ("knative_jobs_lease_losses", "Attempts taken back because their worker was not heard of."),
    "late-finishes": ("knative_jobs_late_finishes", "Outcomes refused because the job was no longer that attempt's."),
}
_HISTOGRAMS = {
    "waited": (
        "knative_jobs_wait_seconds",
        "From a job's submission, or run-at, to the start of its first attempt.",
    ),
    "ran": ("knative_jobs_run_seconds", "From start to end of the attempts that completed their job."),
}


def exposition(accept: str) -> tuple[bytes, str]:
    """Return all metrics as text, and its content type, in the format that the Accept header asks for.

    Raises:
        UnavailableError: Redis is away.
    """
    encode, content_type = choose_encoder(accept)
    registry = CollectorRegistry()
    registry.register(_Jobs(state.metrics()))
    return encode(registry), content_type


class _Jobs(Collector):
    """Gives what was read as metrics; a class because the library's registry asks for one."""

    def __init__(self, read: state.Metrics) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        read = self._read
        jobs = GaugeMetricFamily("knative_jobs", "Jobs that have this status now.", labels=["status", "kind"])
        delayed, oldest = (
            GaugeMetricFamily(name, meaning, labels=["kind"])
            for name, meaning in (
                ("knative_jobs_delayed", "Submitted jobs that are due later: at their run-at, or after a backoff."),
                (
                    "knative_jobs_oldest_waiting_seconds",
                    "How long the job due the longest has been due.",
                ),
            )
        )
        for each in read.kinds:
            delayed.add_metric([each.kind], each.delayed)
            oldest.add_metric([each.kind], each.oldest_waiting_s)
            for status, number in each.counts.items():
                jobs.add_metric([status, each.kind], number)
        yield jobs
        yield delayed
        yield oldest
        for name, meaning, value in (
            ("last_sweep_timestamp_seconds", "When the sweeper last looked; 0: never.", read.swept_at),
            ("redis_memory_bytes", "What Redis uses.", read.memory_bytes),
            ("redis_memory_limit_bytes", "The most that Redis may use; 0: no limit.", read.memory_limit_bytes),
            ("redis_writable", "1 when Redis takes writes, else 0: full, a replica, or its disk.", read.writable),
        ):
            yield GaugeMetricFamily(f"knative_jobs_{name}", meaning, value=value)
        for what, (name, meaning) in _COUNTERS.items():
            counter = CounterMetricFamily(name, meaning, labels=["kind"])
            for each in read.kinds:
                counter.add_metric([each.kind], each.totals.get(what, 0))
            yield counter
        for what, (name, meaning) in _HISTOGRAMS.items():
            histogram = HistogramMetricFamily(name, meaning, labels=["kind"])
            bounds = [*read.bounds, "+Inf"]
            labels = [*(str(float(bound)) for bound in read.bounds), "+Inf"]
            for each in read.kinds:
                up_to = accumulate(each.totals.get(f"{what}.le.{bound}", 0) for bound in bounds)
                total = each.totals.get(f"{what}.micros", 0) / 1e6
                histogram.add_metric([each.kind], list(zip(labels, up_to, strict=True)), total)
            yield histogram
