"""The life of a job on Knative. What a work function may import is here."""

from knative_jobs.work.api import Cancelled, Fail, Job, Retry

__all__ = ["Cancelled", "Fail", "Job", "Retry"]
