"""The commands of `kn jobs`."""

import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from typing import Any

import click
from click.shell_completion import get_completion_class
from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from kn_jobs import api, output
from kn_jobs.output import console, output_option, show

EXIT_CODES = {"complete": 0, "failed": 3, "cancelled": 4}
"""By how the job ended that was waited for. 1: the API refused; 2: the command line is wrong."""
STATUSES = ("submitted", "in progress", "complete", "failed", "cancelled")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="knative-jobs")
def main() -> None:
    """Submit jobs to Knative, and look after them.

    The API is at KNATIVE_JOBS_URL; without that, on this machine at port 5000; else in the cluster of kubectl. A token
    is read from KNATIVE_JOBS_TOKEN, or from the file that KNATIVE_JOBS_TOKEN_FILE names.
    """


def filters(*, with_status: tuple[str, ...]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Let a command take what says which jobs are meant. They arrive as `asked`, as the API takes them."""
    options = [
        click.option("--status", type=click.Choice(with_status), help="Those of this status."),
        click.option("--kind", help="Those of this kind."),
        click.option("--key", help="Those with this key."),
        click.option("--submitted-by", help="Those of the token of this name."),
        click.option("--from", "from_", metavar="TIME", help="Submitted at this time or later."),
        click.option("--to", metavar="TIME", help="Submitted before this time."),
    ]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def with_asked(**given: Any) -> None:
            names = ("status", "kind", "key", "submitted_by", "from_", "to")
            asked = {name.rstrip("_").replace("_", "-"): value for name in names if (value := given.pop(name))}
            command(asked=asked, **given)

        for option in reversed(options):
            with_asked = option(with_asked)
        return with_asked

    return decorate


@main.command()
@click.argument("start", required=False)
@click.argument("end", required=False)
@click.option("--kind", help="What kind of work it is. Without it: default, which has a START and an END.")
@click.option("--input", "input_", metavar="JSON", help="The input; - reads it from standard input, @FILE from a file.")
@click.option("--key", help="A word of your own to find the job by.")
@click.option("--delay", type=float, help="Not before so many seconds.")
@click.option("--run-at", metavar="TIME", help="Not before this time, as 2027-01-31T08:30:00Z.")
@click.option("--max-attempts", type=int, help="The job has failed when so many attempts went wrong.")
@click.option("--timeout", type=float, help="The longest that one attempt may take, in seconds.")
@click.option("--retention", type=float, help="How long the job is kept after it has ended, in seconds.")
@click.option("--idempotency-key", help="The same key with the same job submits it once.")
@click.option("-w", "--wait", is_flag=True, help="Wait for its end; the exit code is 0, or 3 failed, 4 cancelled.")
@output_option
def submit(input_: str | None, idempotency_key: str | None, wait: bool, form: str, **given: Any) -> None:
    """Submit a job, and show its record."""
    job: dict[str, Any] = {name.replace("_", "-"): value for name, value in given.items() if value is not None}
    body = json.dumps(job)
    if input_ is not None:  # as it is written, for a number would not stay as it is
        body = f'{body[:-1]}{", " if job else ""}"input": {_json(input_)}}}'
    headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
    submitted = api.call("POST", "/jobs", content=body, headers=headers).json()
    if not wait:
        _show_record(submitted, form)
        return
    ended = _wait(submitted["id"])
    _show_record(ended, form)
    sys.exit(EXIT_CODES[ended["status"]])


@main.command()
@click.argument("job_id")
@output_option
def get(job_id: str, form: str) -> None:
    """Show the record of a job."""
    _show_record(api.call("GET", "/jobs_status", params={"job_id": job_id}).json(), form)


@main.command(name="list")
@filters(with_status=STATUSES)
@click.option("-n", "--limit", type=click.IntRange(1), default=20, show_default=True, help="The most jobs.")
@output_option
def list_(asked: dict[str, str], limit: int, form: str) -> None:
    """List jobs, newest first."""
    found = api.jobs(asked, limit)
    if not found and form == "table":
        click.echo("There is no such job." if asked else "There are no jobs yet: kn jobs submit START END", err=True)
        return
    show(found, form, output.of_jobs(found))


@main.command()
@filters(with_status=STATUSES)
@click.option("-n", "--limit", type=click.IntRange(1), default=20, show_default=True, help="The most jobs.")
@click.option("--every", type=click.FloatRange(0.2), default=1, show_default=True, help="Seconds between two readings.")
def watch(asked: dict[str, str], limit: int, every: float) -> None:
    """Show how the jobs stand, until Ctrl-C."""
    with suppress(KeyboardInterrupt), Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            jobs = output.of_jobs(api.jobs(asked, limit))
            live.update(Group(output.of_counts(_counts()), "", jobs), refresh=True)
            time.sleep(every)


@main.command()
@click.argument("job_id")
@click.option("--attempt", type=click.IntRange(1), help="What this attempt has said alone.")
@click.option("-f", "--follow", is_flag=True, help="Go on until the job has ended.")
def log(job_id: str, attempt: int | None, follow: bool) -> None:
    """Show what the work of a job has printed and logged."""
    if follow:
        for lines in api.log(job_id, str(attempt or "")):
            click.echo(lines)
    else:
        params = {"job_id": job_id, "attempt": str(attempt or "")}
        click.echo(api.call("GET", "/job_log", params=params).text, nl=False)


@main.command()
@click.argument("job_ids", nargs=-1)
@filters(with_status=("submitted", "in progress"))
@click.option("--dry-run", is_flag=True, help="Only count the jobs.")
def cancel(job_ids: tuple[str, ...], asked: dict[str, str], dry_run: bool) -> None:
    """Cancel jobs: those that are named, or all that the options ask for."""
    _redo("cancel", job_ids, asked, dry_run)


@main.command()
@click.argument("job_ids", nargs=-1)
@filters(with_status=("failed", "cancelled"))
@click.option("--dry-run", is_flag=True, help="Only count the jobs.")
def retry(job_ids: tuple[str, ...], asked: dict[str, str], dry_run: bool) -> None:
    """Retry jobs: those that are named, or all that the options ask for."""
    _redo("retry", job_ids, asked, dry_run)


@main.command()
@click.argument("job_ids", nargs=-1, required=True)
def delete(job_ids: tuple[str, ...]) -> None:
    """Remove jobs that have ended, and all that they left."""
    for job_id in job_ids:
        api.call("POST", "/delete_job", params={"job_id": job_id})
        click.echo(f"{job_id} deleted")


@main.command()
@output_option
def kinds(form: str) -> None:
    """Show the kinds of job, and how many jobs of each have each status."""
    counts = _counts()
    show([{"kind": kind, "counts": of_kind} for kind, of_kind in counts.items()], form, output.of_counts(counts))


@main.command(name="open")
def open_() -> None:
    """Open the dashboard in a browser."""
    click.echo(api.dashboard())
    click.launch(api.dashboard())


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what a shell needs to complete `kn-jobs`: source <(kn-jobs completion bash)."""
    complete = get_completion_class(shell)
    assert complete  # noqa: S101 - click has these three
    click.echo(complete(main, {}, "kn-jobs", "_KN_JOBS_COMPLETE").source())


def _show_record(job: api.Job, form: str) -> None:
    show(job, form, output.of_record(job))


def _redo(action: str, job_ids: tuple[str, ...], asked: dict[str, str], dry_run: bool) -> None:
    if bool(job_ids) == bool(asked):
        raise click.UsageError(f"Name the jobs to {action}, or say with options which: one of the two.")
    if job_ids and dry_run:
        raise click.UsageError("--dry-run counts the jobs that options ask for.")
    for job_id in job_ids:
        job = api.call("POST", f"/{action}_job", params={"job_id": job_id}).json()
        asked_to_stop = " and asked to stop" if action == "cancel" and job["status"] == "in progress" else ""
        click.echo(f"{job_id} {job['status']}{asked_to_stop}")
    if not asked:
        return
    params = asked | ({"dry-run": "1"} if dry_run else {})
    done = api.call("POST", f"/{action}_jobs", params=params).json()
    if job_id := done.get("job-id"):
        ended = _wait(job_id)
        click.echo(f"{ended['progress-message']}: {ended['status']}")
        sys.exit(EXIT_CODES[ended["status"]])
    would_be = "would be " if dry_run else ""
    click.echo(f"{done['count']} jobs {would_be}{'cancelled' if action == 'cancel' else 'retried'}")


def _wait(job_id: str) -> api.Job:
    """Return the record of a job that has ended, and show meanwhile how far it is."""
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[said]}"), TimeElapsedColumn()
    job: api.Job = {}
    hidden = not output.messages.is_terminal
    with Progress(*columns, console=output.messages, transient=True, disable=hidden) as progress:
        task = progress.add_task("submitted", total=None, said="")
        for job in api.records(job_id):
            progress.update(
                task,
                description=job["status"],
                total=1 if "progress" in job else None,
                completed=job.get("progress", 0),
                said=job.get("progress-message", ""),
            )
    return job


def _counts() -> dict[str, dict[str, int]]:
    """Return how many jobs of each kind have each status."""
    known = api.call("GET", "/dashboard/overview").json()["kinds"]
    return {kind: api.call("GET", "/dashboard/overview", params={"kind": kind}).json()["counts"] for kind in known}


def _json(text: str) -> str:
    """Return the JSON that an option gives, or the file that it names, or standard input."""
    try:
        given = sys.stdin.read() if text == "-" else Path(text[1:]).read_text() if text.startswith("@") else text
        json.loads(given)
    except (OSError, ValueError) as error:
        raise click.UsageError(f"--input is no JSON: {error}") from error
    return given


if __name__ == "__main__":
    main(prog_name="kn-jobs")
