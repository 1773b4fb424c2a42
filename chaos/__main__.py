"""`python -m chaos`, see `--help`."""

import argparse
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from chaos import report, work
from chaos.clients import CLIENTS, Book, Client
from chaos.faults import LEASE_SECONDS, Fault, Faults, plan
from chaos.ledger import read, settle
from chaos.proxy import Proxy
from chaos.system import HOST, System, redis_alone, until
from chaos.witness import Witness

FINISH_SECONDS = 150
"""How long what is open may take once the faults are over. The sweeper is called at the full minute."""


def main() -> int:
    """Run it all. Return the exit code: 0 when nothing is wrong, else 1."""
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the system is stopped
    asked = {name: getattr(options, name) for name in ("seconds", "seed", "appendfsync")}
    console = Console()
    console.print("chaos", *(f"--{name} {value}" for name, value in asked.items()), highlight=False)
    faults, book, folder = plan(options.seed, options.seconds), Book(), Path(tempfile.mkdtemp(prefix="chaos-"))
    done, witness = _run(folder, options, faults, book, console)
    with redis_alone(folder) as client:
        may_lose = options.appendfsync == "everysec" and done["kill redis"] > 0
        ledger = settle(book, witness.seen, read(client), folder, may_lose)
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
) -> tuple[Counter[str], Witness]:
    """Run the system with clients and faults for the time, let everything finish, and stop it."""
    proxy, over = Proxy(), threading.Event()
    system = System(
        folder,
        APPENDFSYNC=options.appendfsync,
        REDIS_PROXY_URL=f"redis://{HOST}:{proxy.port}/0",
        JOB_WORK="chaos.work:work",
        JOB_LEASE_SECONDS=str(LEASE_SECONDS),
        JOB_BACKOFF_SECONDS="0.2",
        MAX_QUEUED_JOBS="1000",
        WORKER_DRAIN_SECONDS="5",
        **{work.FOLDER: str(folder)},
    )
    proxy.to_port = system.redis_port
    witness = Witness(system.redis_port)
    chaos = Faults(faults, system, proxy, book)
    clients = [Client(number, options.seed, system.url, book, over) for number in range(CLIENTS)]
    try:
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
    return chaos.done, witness


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("scripts/chaos", description="Prove that faults lose nothing and double nothing.")
    add = parser.add_argument
    add("--seconds", type=int, default=180, help="how long the faults go on (default: 180)")
    add("--seed", type=int, default=random.randrange(1_000_000), help="of the plan and the clients (default: any)")  # noqa: S311
    add("--json", type=Path, metavar="FILE", help="where the ledger is written as JSON")
    policies = "when Redis syncs a write to disk (default: always, before the answer)"
    add("--appendfsync", choices=["always", "everysec"], default="always", help=policies)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
