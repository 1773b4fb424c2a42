"""Work that does what work should not do: the function that is named in a job's `start`.

`JOB_WORK=unruly_work:work`. What a function wants to tell a test it notes in the file EFFECTS.
"""

import asyncio
import contextlib
import ctypes
import functools
import itertools
import json
import logging
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from knative_jobs import Job, Retry

log = logging.getLogger("unruly")
kept: list[Any] = []
"""What a job leaves in the process."""


def work(job: Job) -> object:
    name, *arguments = str(job.start).split(" ", 1)
    return globals()[name](job, *arguments)


def note(text: object) -> None:
    with Path(os.environ["EFFECTS"]).open("a") as effects:
        effects.write(f"{text}\n")


def go_on(job: Job, doing: Callable[[], object]) -> None:
    """Do something again and again in a thread, until it raises or returns something true; then note which."""

    def repeat() -> None:
        try:
            while not (came := doing()):
                time.sleep(0.01)
        except BaseException as error:
            came = type(error).__name__
        note(f"the thread of {job.start} got {came}")

    threading.Thread(target=repeat, daemon=True).start()


def own(job: Job) -> str:
    return f"result of {job.id}"


def end_of(job: Job) -> str:
    return repr(job.end)


def sleep(job: Job, seconds: str) -> str:
    time.sleep(float(seconds))
    return own(job)


def until_file(job: Job, name: str) -> str:
    while not Path(name).exists():
        time.sleep(0.02)
    return own(job)


def file_name(job: Job) -> str:
    job.progress(0.1, os.fsdecode(b"caf\xe9.txt"))
    time.sleep(0.2)
    return own(job)


def nameless(job: Job) -> str:
    class Nameless:
        def __str__(self) -> str:
            raise ValueError("no name")

    job.progress(math.nan, Nameless())  # type: ignore[arg-type]
    return own(job)


def leave_asking(job: Job) -> str:
    go_on(job, lambda: job.cancelled)
    return own(job)


def leave_reporting(job: Job) -> str:
    go_on(job, lambda: job.progress(0.9, "late"))
    return own(job)


def fork_and_return(job: Job) -> str:
    if os.fork() == 0:
        note(os.getpid())
        time.sleep(0.3)
        return "result of a child"
    return own(job)


def fork_and_raise(job: Job) -> str:
    if os.fork() == 0:
        time.sleep(0.1)
        raise ValueError("in the child")
    return own(job)


def fork_and_exit(job: Job) -> int:
    if os.fork() == 0:
        sys.exit(7)
    return os.waitstatus_to_exitcode(os.wait()[1])


def fork_and_report(job: Job) -> str:
    if (child := os.fork()) == 0:
        for use in (lambda: job.progress(0.5, "of a child"), lambda: job.cancelled):
            try:
                use()
            except RuntimeError as error:
                note(error)
    os.waitpid(child, 0)
    return own(job)


def start_and_die(job: Job, how: str) -> None:
    note(subprocess.Popen(["sleep", "299"]).pid)
    die(how)


def fork_and_die(job: Job, how: str) -> None:
    if (child := os.fork()) == 0:
        time.sleep(299)
    note(child)
    die(how)


def shell_and_die(job: Job, how: str) -> None:
    os.system("sleep 299 &")
    die(how)


def die(how: str) -> None:
    os._exit(3) if how == "exit" else os.kill(os.getpid(), int(how))


def die_later(job: Job, leaving: str) -> str:
    if leaving == "a program":
        child = subprocess.Popen(["sleep", "299"]).pid
    elif (child := os.fork()) == 0:
        time.sleep(299)
    note(child)
    threading.Timer(0.2, os._exit, [4]).start()
    return own(job)


def start_and_sleep(job: Job) -> None:
    note(subprocess.Popen(["sleep", "299"]).pid)
    time.sleep(299)


def raise_cancelled_error(job: Job) -> None:
    raise asyncio.CancelledError("by a library")


def raise_keyboard_interrupt(job: Job) -> None:
    raise KeyboardInterrupt("somebody")


def raise_base_exception(job: Job) -> None:
    class Unusual(BaseException):
        pass

    raise Unusual("rare")


def raise_without_message(job: Job) -> None:
    class BrokenError(Exception):
        def __str__(self) -> str:
            raise ZeroDivisionError

    raise BrokenError


def raise_file_name(job: Job) -> None:
    raise ValueError(os.fsdecode(b"caf\xe9.txt"))


def retry_after(job: Job, seconds: str) -> None:
    raise Retry(after=float(seconds))


def retry_after_all(job: Job) -> None:
    retry = Retry(after=1)
    retry.after = math.inf
    raise retry


def close_output(job: Job) -> str:
    sys.stdout.close()
    sys.stderr.close()
    return own(job)


def take_output_away(job: Job) -> str:
    sys.stdout = sys.stderr = None
    return own(job)


def replace_output(job: Job) -> str:
    kept.append(sys.stdout)
    sys.stdout = object()  # type: ignore[assignment]
    return own(job)


def close_descriptors(job: Job) -> str:
    os.close(1)
    os.close(2)
    return own(job)


def say(job: Job, text: str) -> str:
    print(text)
    return own(job)


def sort_input(job: Job) -> str:
    return subprocess.run(["sort"], capture_output=True, text=True, check=True).stdout + sys.stdin.read()


async def a_coroutine(job: Job) -> str:
    await asyncio.sleep(0)
    return own(job)


@functools.wraps(a_coroutine)
def wrapped(job: Job) -> object:
    return a_coroutine(job)


class Awaited:
    async def __call__(self, job: Job) -> str:
        return await a_coroutine(job)


an_object = Awaited()


def nested(job: Job, depth: str) -> object:
    return functools.reduce(lambda inner, _: [inner], range(int(depth)), 0)


def nested_objects(job: Job, depth: str) -> object:
    return functools.reduce(lambda inner, _: {"[{": inner}, range(int(depth)), "]}")


def many_digits(job: Job, digits: str) -> object:
    sys.set_int_max_str_digits(0)
    return {"number": 10 ** (int(digits) - 1)}


def long_string_of_digits(job: Job) -> str:
    return "[{" * 1000 + "7" * 5000


def allocate(job: Job, mib: str) -> str:
    kept_here = bytearray(int(mib) * 1024 * 1024)
    return f"{len(kept_here)} bytes"


def allocate_bit_by_bit(job: Job, mib: str) -> str:
    kept_here = [bytes(1000) for _ in range(int(mib) * 1024)]
    return f"{len(kept_here)} pieces"


def allocate_in_c_and_crash(job: Job, mib: str) -> str:
    malloc = ctypes.CDLL(None).malloc
    malloc.restype = ctypes.c_void_p
    for _ in range(int(mib)):
        ctypes.memset(malloc(1024 * 1024), 1, 1024 * 1024)  # as so much of C does, without looking at what it got
    return "more than there is"


def send(job: Job, plan: str) -> str:
    """Write to the socket whatever the plan says, and go on with that after the end where it says so."""
    pieces = [_piece(job, *step) for step in json.loads(plan)]
    now = list(itertools.takewhile(lambda piece: piece is not None, pieces))
    later = [piece for piece in pieces[len(now) :] if piece is not None]
    end = os.dup(job._worker._channel.fileno())  # type: ignore[attr-defined]

    def write(data: list[bytes]) -> None:
        with contextlib.suppress(OSError):
            for piece in data:
                os.write(end, piece)

    def write_later() -> None:
        time.sleep(0.02)
        write(later)
        os.close(end)

    write(now)
    threading.Thread(target=write_later, daemon=True).start()
    return own(job)


def _piece(job: Job, whose: str, word: str, details: list[object], cut: int) -> bytes | None:
    names: dict[str, list[object]] = {
        "mine": [job.id, job.attempt],
        "of an attempt before": [job.id, job.attempt - 1],
        "of the next attempt": [job.id, job.attempt + 1],
        "of another job": ["0e399b77-54a3-486b-b458-49fc4545f2da", 1],
        "nobody's": [],
    }
    match whose:
        case "the end of the job":
            return None
        case "bytes":
            return bytes.fromhex(word)
    line = json.dumps([word, *names[whose], *details]).encode() + b"\n"
    return line[: len(line) - cut]


def log_and_print(job: Job) -> str:
    print("printed first")
    log.info("logged %s", "second")
    print("printed third", file=sys.stderr)
    subprocess.run(["echo", "fourth, by a child"], check=True)
    logging.getLogger().warning("logged fifth")
    log.debug("logged by nobody")
    try:
        raise ValueError("sixth")
    except ValueError:
        log.exception("caught")
    sys.stdout.write("the last, without a line's end")
    return own(job)


def last_words(job: Job) -> None:
    print("last words")
    log.error("last record")
    os.kill(os.getpid(), signal.SIGKILL)


def forge(job: Job, text: str) -> str:
    for line in json.loads(text):
        print(line)
        log.info("%s", line)
        os.write(1, f"{line}\n".encode())
    return own(job)


def write_bytes(job: Job) -> str:
    os.write(1, b"caf\xe9\n")
    os.write(2, sys.argv[3].encode() + b"no record\n")
    return own(job)


def flood(job: Job, mib: str) -> str:
    line = "y" * 1023
    for number in range(int(mib) * 1024):
        print(line)
        if number % 100 == 0:
            job.progress(number / (int(mib) * 1024))
    return own(job)


def long_line(job: Job) -> str:
    print("a" * 600_000 + "z")
    log.info("%s", "b" * 100_000)
    return own(job)


def leave_printing(job: Job) -> str:
    go_on(job, lambda: print("from a thread") or job.cancelled)
    return own(job)


print("imported")


def say_its_name(job: Job) -> None:
    logging.info("my name is %s", job.id)


def what_it_gets(job: Job) -> dict[str, object]:
    return {"kind": job.kind, "input": job.input, "start": job.start, "end": job.end}


async def at_once(job: Job) -> object:
    """The work of several jobs at once, on one event loop."""
    name, *arguments = str(job.start).split(" ", 1)
    return await globals()[f"{name}_at_once"](job, *arguments)


async def pid_at_once(job: Job) -> object:
    """Say before and after a while whose job it is, and return that with the number of the process."""
    print(f"printed by {job.id}, ", end="")
    log.info("logged by %s", job.id)
    await asyncio.sleep(0.3)
    print(f"and again by {job.id}")
    await asyncio.to_thread(job.progress, 0.5, f"half of {job.id}")
    await asyncio.sleep(0.3)
    return [job.id, os.getpid()]


async def sleep_at_once(job: Job, seconds: str) -> None:
    note(f"{job.id} began")
    try:
        await asyncio.sleep(float(seconds))
    except asyncio.CancelledError:
        note(f"{job.id} was given up")
        raise


async def stubborn_at_once(job: Job) -> None:
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(600)


async def until_cancelled_at_once(job: Job) -> None:
    while True:
        job.progress(0.1)
        await asyncio.sleep(0.05)


async def die_at_once(job: Job) -> None:
    os._exit(3)


async def raise_at_once(job: Job) -> None:
    raise ValueError(job.id)


async def fork_at_once(job: Job) -> str:
    if os.fork():
        await asyncio.sleep(0.5)
        return "of the parent"
    return "of the child"


async def print_otherwise_at_once(job: Job) -> str:
    sys.stdout.buffer.write(b"printed as bytes\n")
    subprocess.run(["echo", "printed by a program"], stdout=sys.stdout, check=True)
    print("printed", "in", "words", flush=True)
    sys.stderr.write("printed to the other\n")
    return "done"


async def wait_at_once(job: Job) -> None:
    while not Path(str(job.start)).exists():
        await asyncio.sleep(0.5)
