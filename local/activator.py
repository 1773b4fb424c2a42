"""The activator: brings a request for a cluster-local function to one of its instances, and waits until one has room.

`http://HOST:PORT/SERVICE` is the Service's address, to which Triggers and PingSources send.
"""

from collections.abc import Awaitable, Callable, Mapping

import aiohttp
from aiohttp import web

from local.autoscaler import Autoscaler, UnavailableError

Handler = Callable[[web.BaseRequest], Awaitable[web.Response]]

# What belongs to one connection, or is set anew for the next.
_DROPPED = {"host", "connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"}
_NO_HEADERS_OF_ITS_OWN = ("Accept", "Accept-Encoding", "User-Agent", "Content-Type")


def session() -> aiohttp.ClientSession:
    """Return the client that reaches the instances; the autoscalers bound how many requests are open."""
    connector = aiohttp.TCPConnector(limit=0)
    return aiohttp.ClientSession(connector=connector, auto_decompress=False, skip_auto_headers=_NO_HEADERS_OF_ITS_OWN)


def forwarding(services: Mapping[str, Autoscaler], client: aiohttp.ClientSession) -> Handler:
    """Return the handler that forwards by the first part of the path."""

    async def forward(request: web.BaseRequest) -> web.Response:
        name, _, path = request.path[1:].partition("/")
        autoscaler = services.get(name)
        if not autoscaler:
            return web.Response(status=404, text=f"there is no cluster-local Service {name!r}\n")
        body = await request.read()
        try:
            instance = await autoscaler.acquire()
        except UnavailableError:
            return web.Response(status=503, text=f"no instance of {name} could be started\n")
        except TimeoutError:
            return web.Response(status=504, text=f"no instance of {name} had room in time\n")
        try:
            async with client.request(
                request.method,
                f"http://{instance.host}:{instance.port}/{path}",
                params=request.query_string,
                headers=_kept(request.headers),
                data=body,
                timeout=aiohttp.ClientTimeout(total=autoscaler.service.timeout_s),
            ) as response:
                answer = await response.read()
                return web.Response(status=response.status, headers=_kept(response.headers), body=answer)
        except TimeoutError:
            return web.Response(status=504, text=f"{name} did not answer in time\n")
        except (aiohttp.ClientError, OSError) as error:
            return web.Response(status=502, text=f"the instance of {name} went away: {error}\n")
        finally:
            autoscaler.release(instance)

    return forward


def _kept(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _DROPPED}
