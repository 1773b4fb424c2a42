"""The outbox: sends the completion event of each job to the Broker, at least once, in the background.

The end of a job and its entry in the outbox are one step. A process takes the entry, emits the event, and removes the
entry once the Broker has accepted the event. If the process dies first, the entry becomes visible again after the
visibility timeout.
"""

import logging
import threading
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import cache

from knative_jobs.events import emit
from knative_jobs.runtime.settings import settings
from knative_jobs.runtime.shutdown import stopping
from knative_jobs.store import state

VISIBILITY_SECONDS = 60
"""The visibility timeout: for so long no other process takes the entry. It is longer than an emission may take."""
PAUSE_SECONDS = 0.2
"""While events are in flight, the outbox is checked at this interval."""

_log = logging.getLogger("knative_jobs.events")
_asked = threading.BoundedSemaphore(1)


def announce() -> None:
    """Emit completion events, at most MAX_OPEN at once, until no entry is due.

    After SIGTERM, or once the Broker has refused an event, this waits for the events in flight and begins no more.

    Raises:
        UnavailableError: Redis is away. What was emitted and could not be recorded is emitted again.
    """
    open_: dict[Future[bool], state.Ended] = {}
    more = True
    while settings().k_sink:
        room = emit.MAX_OPEN - len(open_) if more and not stopping.is_set() else 0
        ends = state.outbox_take(room, VISIBILITY_SECONDS) if room else []
        open_ |= {emit.emit_ended(*end): end for end in ends}
        if not open_:
            return
        answered = {emission: open_.pop(emission) for emission in wait(open_, PAUSE_SECONDS, FIRST_COMPLETED).done}
        more &= all(emission.result() for emission in answered)
        if announced := [end for emission, end in answered.items() if emission.result()]:
            state.outbox_acknowledge(announced)


def announce_soon() -> None:
    """Call `announce` in the background. Returns at once."""
    if settings().k_sink and _asked.acquire(blocking=False):
        _thread().submit(_announce)


def _announce() -> None:
    _asked.release()  # what ends from here on asks anew
    try:
        announce()
    except Exception as error:
        _log.warning("how jobs ended was not announced, the sweeper will: %s", error)


@cache
def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "announce")
