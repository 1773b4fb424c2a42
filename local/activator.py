"""The activator: brings a request for a cluster-local function to an instance, and waits until one has room."""

from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

import aiohttp
from yarl import URL

from local.autoscaler import Autoscaler, UnavailableError
from local.manifests import DOMAIN

LONGEST_SECONDS = 600
"""How long a request to somewhere else may last: as long as Knative lets any."""
_NO_HEADERS_OF_ITS_OWN = ("Accept", "Accept-Encoding", "User-Agent", "Content-Type")


class Answer(NamedTuple):
    """An HTTP response."""

    status: int
    headers: Mapping[str, str]
    body: bytes


Post = Callable[[str, Mapping[str, str], bytes], Awaitable[Answer]]
"""Sends a body with these headers to a URL."""


def session() -> aiohttp.ClientSession:
    """Return the client; the autoscalers and the Broker bound how many requests are open."""
    connector = aiohttp.TCPConnector(limit=0)
    return aiohttp.ClientSession(connector=connector, auto_decompress=False, skip_auto_headers=_NO_HEADERS_OF_ITS_OWN)


def posting(services: Mapping[str, Autoscaler], client: aiohttp.ClientSession) -> Post:
    """Return what sends to these Services, by name, at their addresses in DOMAIN, and to any other address.

    It raises what the client does when there is no answer from another address.
    """

    async def post(url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        at = URL(url)
        name, _, domain = (at.host or "").partition(".")
        if domain != DOMAIN:
            return await _send(client, at, headers, body, LONGEST_SECONDS)
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
            at = at.with_host(instance.host).with_port(instance.port)
            return await _send(client, at, headers, body, autoscaler.service.timeout_s)
        except TimeoutError:
            return _failed(504, f"{name} did not answer in time")
        except (aiohttp.ClientError, OSError) as error:
            return _failed(502, f"the instance of {name} went away: {error}")
        finally:
            autoscaler.release(instance)

    return post


async def _send(
    client: aiohttp.ClientSession, to: URL, headers: Mapping[str, str], body: bytes, timeout_s: float
) -> Answer:
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    async with client.post(to, data=body, headers=headers, timeout=timeout) as response:
        return Answer(response.status, response.headers, await response.read())


def _failed(status: int, why: str) -> Answer:
    return Answer(status, {}, f"{why}\n".encode())
