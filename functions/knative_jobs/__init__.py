"""The life of a job on Knative. What a work function may import is here."""

from knative_jobs.work.api import Cancelled, Continue, Fail, Job, Retry

__all__ = ["Cancelled", "Continue", "Fail", "Job", "Retry"]
