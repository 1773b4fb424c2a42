"""The activator: brings a request for a cluster-local function to an instance, and waits until one has room.

It also brings events to the JobSinks.
"""

from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import urlsplit

from knative_jobs.events import http_client
from knative_jobs.events.http_client import Answer
from local.autoscaler import Autoscaler, UnavailableError
from local.jobsink import JobSink
from local.manifests import DOMAIN, JOBSINK_HOST

LONGEST_SECONDS = 600
"""How long a request to somewhere else may last: as long as Knative lets any."""
Post = Callable[[str, Mapping[str, str], bytes], Awaitable[Answer]]
"""Sends a body with these headers to a URL."""


def posting(services: Mapping[str, Autoscaler], job_sinks: Mapping[str, JobSink] | None = None) -> Post:
    """Return what sends to these Services and JobSinks, by name, at the addresses of a cluster, and to any other one.

    It raises what the client does when there is no answer from another address.
    """

    async def post(url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        to = urlsplit(url)
        name, _, domain = (to.hostname or "").partition(".")
        if to.hostname == JOBSINK_HOST:
            job_sink = (job_sinks or {}).get(to.path.rpartition("/")[2])
            # Knative's answers 400 for one that is not there.
            return await job_sink.receive(headers, body) if job_sink else _failed(400, f"there is no JobSink {to.path}")
        if domain != DOMAIN:
            return await http_client.post(url, headers, body, LONGEST_SECONDS)
        autoscaler = services.get(name)
        if not autoscaler:
            return _failed(404, f"there is no cluster-local Service {name!r}")
        try:
            instance = await autoscaler.acquire()
        except UnavailableError:
            return _failed(503, f"no instance of {name} could be started")
        except TimeoutError:
            return _failed(504, f"no instance of {name} had room in time")
        try:
            its_url = to._replace(netloc=f"{instance.host}:{instance.port}").geturl()
            return await http_client.post(its_url, headers, body, autoscaler.service.timeout_s)
        except http_client.NoAnswerError:
            return _failed(504, f"{name} did not answer in time")
        except OSError as error:
            return _failed(502, f"the instance of {name} went away: {error}")
        finally:
            autoscaler.release(instance)

    return post


def _failed(status: int, why: str) -> Answer:
    return Answer(status, {}, f"{why}\n".encode())
