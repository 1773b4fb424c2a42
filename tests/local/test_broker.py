"""The Broker: what it takes, whom it brings it to, how hard it tries, and what becomes of the rest."""

import base64
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from types import MappingProxyType
from typing import NamedTuple

import aiohttp
import pytest
from aiohttp import web

from local import activator
from local.broker import Broker
from local.delivery import NO_EVENT, backoff_s
from local.manifests import Delivery, Trigger
from tests.local.conftest import Sink, listening, until

EVENT = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/jobs", "ce-type": "submitted"}
QUICK = Delivery(retry=2, backoff_policy="exponential", backoff_delay_s=0.05)


class Sender:
    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session, self.url = session, url

    async def send(self, body: bytes = b"{}", **headers: str) -> int:
        given = EVENT | {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.post(self.url, data=body, headers=given) as response:
            return response.status


class Sub(NamedTuple):
    """A subscription: where the events that have the attributes go, and those that could not be delivered."""

    sink: Sink | str
    attributes: Mapping[str, str] = MappingProxyType({})
    delivery: Delivery = QUICK
    dead: Sink | None = None


@asynccontextmanager
async def broker(*subscriptions: Sub) -> AsyncIterator[Sender]:
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        triggers = []
        for sink, attributes, delivery, dead in subscriptions:
            address = sink if isinstance(sink, str) else await stack.enter_async_context(listening(sink.handle))
            dead_address = await stack.enter_async_context(listening(dead.handle)) if dead else ""
            delivery = delivery._replace(dead_letter_sink=dead_address)
            triggers.append(Trigger("trigger", dict(attributes), address, delivery))
        url = await stack.enter_async_context(listening(Broker(activator.posting({}), triggers).receive))
        yield Sender(session, url)


async def test_an_event_goes_to_every_trigger_whose_attributes_it_all_has() -> None:
    all_of_them, by_type, by_both, other = Sink(), Sink(), Sink(), Sink()
    async with broker(
        Sub(all_of_them),
        Sub(by_type, {"type": "submitted"}),
        Sub(by_both, {"type": "submitted", "subject": "job-1"}),
        Sub(other, {"type": "submitted", "source": "/elsewhere"}),
    ) as sender:
        assert await sender.send(ce_id="a") == 202
        assert await sender.send(ce_id="b", ce_subject="job-1") == 202
        assert await sender.send(ce_id="c", ce_type="completed") == 202
        await until(lambda: len(all_of_them.ids) == 3 and len(by_type.ids) == 2 and by_both.ids)
    assert sorted(all_of_them.ids) == ["a", "b", "c"]
    assert sorted(by_type.ids) == ["a", "b"]
    assert by_both.ids == ["b"]
    assert not other.ids


async def test_an_event_arrives_as_it_was_sent() -> None:
    sink = Sink()
    async with broker(Sub(sink)) as sender:
        await sender.send(b'{"id":  1}', ce_subject="job-1", ce_traceparent="00-1", content_type="application/json")
        await until(lambda: sink.received)
    _, headers, body = sink.received[0]
    assert body == b'{"id":  1}'
    assert (headers["ce-subject"], headers["ce-traceparent"]) == ("job-1", "00-1")
    assert headers["content-type"] == "application/json"


@pytest.mark.parametrize(("data", "body"), [({"data": {"id": 1}}, b'{"id": 1}'), ({}, b"")])
async def test_a_structured_event_is_an_event_too(data: dict[str, object], body: bytes) -> None:
    sink = Sink()
    event = {"specversion": "1.0", "id": "s", "source": "/jobs", "type": "submitted"} | data
    async with broker(Sub(sink, {"type": "submitted"})) as sender:
        kind = "application/cloudevents+json; charset=utf-8"
        async with sender.session.post(sender.url, data=json.dumps(event), headers={"content-type": kind}) as response:
            assert response.status == 202
        await until(lambda: sink.received)
    assert (sink.ids, sink.received[0][2]) == (["s"], body)


async def test_what_is_no_event_is_refused() -> None:
    async with broker() as sender:
        assert await sender.send(ce_type="") == 400
        assert await sender.send(ce_specversion="") == 400
        async with sender.session.post(sender.url, json={"id": 1}) as response:
            assert response.status == 400
        headers = {"content-type": "application/cloudevents+json"}
        async with sender.session.post(sender.url, data=b"{", headers=headers) as response:
            assert response.status == 400
        async with sender.session.get(sender.url) as response:
            assert response.status == 405


async def test_the_sender_never_waits_for_a_subscriber() -> None:
    slow = Sink(takes_s={"slow": 1000})
    async with broker(Sub(slow)) as sender:
        assert await sender.send(ce_id="slow") == 202
        assert await sender.send(ce_id="quick") == 202
        await until(lambda: set(slow.ids) == {"slow", "quick"})  # nor does one event wait for another


async def test_a_failed_delivery_is_repeated_after_longer_and_longer_waits() -> None:
    sink = Sink([web.Response(status=status) for status in (503, 404, 408, 409, 429)])
    async with broker(Sub(sink, delivery=QUICK._replace(retry=5, backoff_delay_s=0.02))) as sender:
        await sender.send()
        await until(lambda: len(sink.ids) == 6)
    for wait, least in zip(sink.waits, (0.02, 0.04, 0.08, 0.16, 0.32), strict=True):
        assert wait >= least


def test_exponential_backoff_doubles() -> None:
    exponential = QUICK._replace(backoff_policy="exponential", backoff_delay_s=2)
    assert [backoff_s(exponential, retry) for retry in range(4)] == [2, 4, 8, 16]


def test_linear_backoff_grows_by_the_delay() -> None:
    linear = QUICK._replace(backoff_policy="linear", backoff_delay_s=2)
    assert [backoff_s(linear, retry) for retry in range(4)] == [0, 2, 4, 6]


async def test_a_refusal_is_not_repeated() -> None:
    sink, dead = Sink([web.Response(status=400, text="no such job")]), Sink()
    async with broker(Sub(sink, dead=dead)) as sender:
        await sender.send()
        await until(lambda: dead.received)
    assert sink.ids == ["1"]


async def test_what_is_given_up_goes_to_the_dead_letter_sink_and_says_why() -> None:
    sink, dead = Sink([web.Response(status=503, text="Redis is away") for _ in range(3)]), Sink()
    async with broker(Sub(sink, dead=dead)) as sender:
        await sender.send(b"the data", ce_subject="job-1")
        await until(lambda: dead.received)
        await sender.send(ce_id="2")
        await until(lambda: "2" in sink.ids)
    assert sink.ids == [*["1"] * 3, "2"]
    assert dead.ids == ["1"]
    _, headers, body = dead.received[0]
    assert body == b"the data"
    assert headers["ce-subject"] == "job-1"
    assert headers["ce-knativeerrordest"].startswith("http://127.0.0.1:")
    assert headers["ce-knativeerrorcode"] == "503"
    assert base64.b64decode(headers["ce-knativeerrordata"]) == b"Redis is away"


async def test_nobody_there_is_a_failed_delivery() -> None:
    dead = Sink()
    async with broker(Sub("http://127.0.0.1:1/", dead=dead)) as sender:
        await sender.send()
        await until(lambda: dead.received)
    assert dead.received[0][1]["ce-knativeerrorcode"] == "500"


async def test_an_event_in_a_reply_goes_to_its_own_triggers() -> None:
    reply = EVENT | {"ce-id": "2", "ce-type": "completed"}
    worker, watcher = Sink([web.Response(body=b"done", headers=reply)]), Sink()
    async with broker(Sub(worker, {"type": "submitted"}), Sub(watcher, {"type": "completed"})) as sender:
        await sender.send()
        await until(lambda: watcher.received)
    assert worker.ids == ["1"]
    assert watcher.ids == ["2"]
    assert watcher.received[0][2] == b"done"


async def test_any_other_reply_is_a_failed_delivery() -> None:
    sink, dead = Sink([web.Response(text="OK") for _ in range(3)]), Sink()
    async with broker(Sub(sink, dead=dead)) as sender:
        await sender.send()
        await until(lambda: dead.received)
    assert sink.ids == ["1"] * 3
    assert dead.received[0][1]["ce-knativeerrorcode"] == "502"
    assert base64.b64decode(dead.received[0][1]["ce-knativeerrordata"]) == NO_EVENT
