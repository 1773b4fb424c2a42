"""PingSources: events sent at the times of a cron schedule."""

import asyncio
import time
import uuid
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from cronsim import CronSim

from knative_jobs.events.cloudevent import Event
from knative_jobs.events.http_client import NoAnswerError
from local.activator import Post
from local.log import say
from local.manifests import PingSource


async def send(source: PingSource, post: Post, *, at_once: bool) -> None:
    """Send the source's event on its schedule, for ever.

    Args:
        source: says what is sent, when and where to.
        post: sends it.
        at_once: send the event now, too.
    """
    if at_once:
        await _send_once(source, post)
    zone = ZoneInfo(source.timezone) if source.timezone else UTC
    at = datetime.now(zone)
    while True:
        at = next(CronSim(source.schedule, max(at, datetime.now(zone))))
        await asyncio.sleep(at.timestamp() - time.time())  # of the epoch, for a day may have 23 hours, or 25
        await _send_once(source, post)


async def _send_once(source: PingSource, post: Post) -> None:
    attributes = {
        "specversion": "1.0",
        "type": "dev.knative.sources.ping",
        "source": f"/apis/v1/namespaces/default/pingsources/{source.name}",
        "id": str(uuid.uuid4()),
        "datacontenttype": source.content_type,
    }
    event = Event(attributes, source.data.encode())
    try:
        answer = await post(source.sink, event.headers(), event.data)
        if answer.status >= 300:
            say(source.name, f"answered {answer.status} to its PingSource: {answer.body.decode(errors='replace')}")
    except (OSError, NoAnswerError) as error:
        say(source.name, f"did not answer its PingSource: {error!r}")
