"""`python -m chaos`, see `--help`."""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import redis
from rich.console import Console
from rich.progress import Progress

from chaos import job_kinds, report, work
from chaos.clients import CLIENTS, Book, Client
from chaos.faults import LEASE_SECONDS, Fault, Faults, kinds, plan
from chaos.job_kinds import Service
from chaos.ledger import Store, read, settle
from chaos.replicated import REPLICAS, Replicated
from chaos.system import DATA, HOST, System, redis_alone
from chaos.witness import Witness
from harness.proxy import Proxy
from harness.waiting import until
from local import redis_users

FINISH_SECONDS = 150
"""How long what is open may take once the faults are over. The sweeper is called at the full minute."""


def main() -> int:
    """Run it all. Return the exit code: 0 when nothing is wrong, else 1."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the system is stopped
    names = ("seconds", "seed", "appendfsync", *(("failover", "wait_replicas") if options.failover else ()))
    asked = {name: getattr(options, name) for name in names}
    console = Console()
    words = (f"--{name.replace('_', '-')}{'' if value is True else f' {value}'}" for name, value in asked.items())
    console.print("chaos", *words, highlight=False)
    book, folder = Book(), Path(tempfile.mkdtemp(prefix="chaos-"))
    faults = plan(options.seed, options.seconds, kinds(options.failover))
    done, witness, store = _run(folder, options, faults, book, console)
    if options.failover:
        may_lose = options.wait_replicas < REPLICAS
    else:
        may_lose = options.appendfsync == "everysec" and done["kill redis"] > 0
    ledger = settle(book, witness.seen, store, folder, may_lose)
    report.show(console, ledger, done)
    if options.json:
        report.write(options.json, ledger, done, faults, asked)
    if not report.passed(ledger):
        console.print(f"What it wrote is in {folder}", highlight=False, soft_wrap=True)
        return 1
    shutil.rmtree(folder)
    return 0


def _run(
    folder: Path, options: argparse.Namespace, faults: list[Fault], book: Book, console: Console
) -> tuple[Counter[str], Witness, Store]:
    """Run the system with clients and faults for the time, let everything finish, and stop it.

    Returns:
        How many of each kind of fault were done, the witness, and what Redis holds at the end.
    """
    proxy, over = Proxy(), threading.Event()
    replicated = Replicated(folder / "replicated") if options.failover else None
    service = Service()
    job_kinds.declare(folder / "kinds", service.address)
    os.environ[work.FOLDER] = str(folder)  # for the service, which is in this process
    system = System(
        folder,
        APPENDFSYNC=options.appendfsync,
        REDIS_PROXY_URL=replicated.url if replicated else f"redis://{HOST}:{proxy.port}/0",
        REDIS_WAIT_REPLICAS=str(options.wait_replicas if replicated else 0),
        JOB_WORK="chaos.work:work",
        JOB_LEASE_SECONDS=str(LEASE_SECONDS),
        JOB_BACKOFF_SECONDS="0.2",
        MAX_QUEUED_JOBS="1000",
        WORKER_DRAIN_SECONDS="5",
        **{work.FOLDER: str(folder)},
    )
    proxy.to_port = system.redis_port
    own = partial(redis.Redis, HOST, system.redis_port, decode_responses=True, socket_timeout=5)
    connect: Callable[[], AbstractContextManager[redis.Redis]] = replicated.client if replicated else own
    witness = Witness(connect, options.wait_replicas if replicated else 0)
    chaos = Faults(faults, system, proxy, book, connect, replicated)
    clients = [Client(number, options.seed, system.url, book, over) for number in range(CLIENTS)]
    try:
        if replicated:
            replicated.start((folder / DATA / redis_users.FILE).read_text())
        witness.start()
        chaos.start()
        for client in clients:
            client.start()
        with Progress(console=console) as progress:
            task = progress.add_task("", total=options.seconds)
            ends_at = time.monotonic() + options.seconds
            while (left := ends_at - time.monotonic()) > 0:
                said = f"{sum(1 for _ in book.acknowledged()):,} acknowledged, {report.kills(chaos.done)} kills"
                progress.update(task, completed=options.seconds - left, description=said)
                time.sleep(0.2)
            progress.update(task, completed=options.seconds, description="letting it finish")
            chaos.stop()
            over.set()
            for client in clients:
                client.join()
            until(lambda: witness.open_jobs() == 0, FINISH_SECONDS)
    finally:
        chaos.stop()
        over.set()
        for client in clients:
            client.join()
        witness.stop()
        system.stop()
        service.stop()
        with replicated.stopping() if replicated else redis_alone(folder) as left:
            store = read(left)
        proxy.close()
    return chaos.done, witness, store


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("scripts/chaos", description="Prove that faults lose nothing and double nothing.")
    add = parser.add_argument
    add("--seconds", type=int, default=180, help="how long the faults go on (default: 180)")
    add("--seed", type=int, default=random.randrange(1_000_000), help="of the plan and the clients (default: any)")  # noqa: S311
    add("--json", type=Path, metavar="FILE", help="where the ledger is written as JSON")
    add(
        "--failover",
        action="store_true",
        help="Redis has replicas and Sentinels, and its primary fails again and again",
    )
    replicas = f"so many replicas have what is acknowledged, with --failover (default: {REPLICAS}, all of them)"
    add("--wait-replicas", type=int, default=REPLICAS, choices=range(REPLICAS + 1), help=replicas)
    policies = "when Redis syncs a write to disk (default: always, before the answer)"
    add("--appendfsync", choices=["always", "everysec"], default="always", help=policies)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
