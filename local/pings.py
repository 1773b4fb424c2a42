"""PingSources: events sent at the times of a cron schedule."""

import asyncio
import uuid
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from cronsim import CronSim

from knative_jobs.events.cloudevent import Event
from knative_jobs.events.http_client import NoAnswerError
from local.activator import Post
from local.log import say
from local.manifests import PingSource


async def send(source: PingSource, post: Post) -> None:
    """Send the source's event now, so that nothing waits which a crash left behind, and on its schedule, for ever."""
    zone = ZoneInfo(source.timezone) if source.timezone else UTC
    while True:
        await _send_once(source, post)
        now = datetime.now(zone)
        await asyncio.sleep((next(CronSim(source.schedule, now)) - now).total_seconds())


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
