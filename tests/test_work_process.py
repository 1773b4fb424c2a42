"""A worker and the process of the work, whatever the work does: a job gets its own result and no other.

The works are in tests/unruly_work.py.
"""

import json
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from knative_jobs.jobs import attempt
from knative_jobs.store import state
from knative_jobs.work import launcher, one_attempt
from knative_jobs.work.messages import BadMessageError, Channel, is_result, result_text, storable
from tests.conftest import Function, Redis, Start, eventually

Record = dict[str, object]
Run = Callable[..., Record]
OTHERS = ["of an attempt before", "of the next attempt", "of another job"]


@pytest.fixture
def effects(tmp_path: Path) -> Path:
    return tmp_path / "effects"


@pytest.fixture
def worker(start: Start, effects: Path) -> Start:
    """Start a worker whose work is one of tests/unruly_work.py, and fails for good when it fails."""

    def worker(**settings: str) -> Function:
        given = {"JOB_WORK": "unruly_work:work", "EFFECTS": str(effects), "JOB_MAX_ATTEMPTS": "1", **settings}
        return start("worker", **given).ready()

    return worker


@pytest.fixture
def submit(endpoint: Start, store: Redis) -> Callable[[str], str]:
    def submit(start: str) -> str:
        body = json.dumps({"start": start, "end": 1})
        return str(endpoint("jobs").request("POST", "/jobs", body=body).json()["id"])

    return submit


@pytest.fixture
def status(endpoint: Start) -> Callable[[str], Record]:
    def status(job_id: str) -> Record:
        return dict(endpoint("jobs_status").request("GET", f"/jobs_status?job_id={job_id}").json())

    return status


@pytest.fixture
def run(submit: Callable[[str], str], status: Callable[[str], Record]) -> Run:
    """Have a worker do a job, and return its record."""

    def run(function: Function, start: str) -> Record:
        job_id = submit(start)
        assert function.deliver(job_id) == 204
        return status(job_id)

    return run


def is_own(job: Record) -> bool:
    return (job["status"], job.get("result")) == ("complete", f"result of {job['id']}")


def alive(pid: str | int) -> bool:
    """Whether a process is there and not only waited for."""
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(int(pid)).status() != psutil.STATUS_ZOMBIE
    return False


class TestAHeartbeatThatGoesWrong:
    def test_a_progress_text_that_is_not_unicode_is_made_storable(self, worker: Start, run: Run) -> None:
        function = worker()
        job = run(function, "file_name")
        assert is_own(job)
        assert job["progress-message"] == "caf\ufffd.txt"
        assert all(is_own(run(function, "own")) for _ in range(3))

    def test_a_progress_that_cannot_be_shown_fails_no_job(self, worker: Start, run: Run) -> None:
        assert is_own(run(worker(), "nameless"))

    @pytest.mark.parametrize("fault", ["no rights", "busy"])
    def test_any_error_of_redis_is_a_missed_heartbeat(
        self, worker: Start, submit, status, run: Run, store: Redis, tmp_path: Path, fault: str
    ) -> None:
        function = worker(JOB_LEASE_SECONDS="3")
        jobs = [submit(f"until_file {tmp_path / 'go'}"), submit("own"), submit("own")]
        thread = threading.Thread(target=function.deliver, args=[jobs[0]])
        thread.start()
        eventually(lambda: status(jobs[0])["status"] == "in progress")
        with self.without_rights(store) if fault == "no rights" else self.busy(store):
            eventually(lambda: "heartbeat missed" in function.log())
        (tmp_path / "go").touch()
        thread.join()
        assert all(is_own(status(job_id)) for job_id in jobs)
        assert is_own(run(function, "own"))

    @contextmanager
    def without_rights(self, store: Redis) -> Iterator[None]:
        store.client.execute_command("ACL", "SETUSER", "worker", "-evalsha")
        try:
            yield
        finally:
            store.client.execute_command("ACL", "SETUSER", "worker", "+evalsha")

    @contextmanager
    def busy(self, store: Redis) -> Iterator[None]:
        store.client.config_set("busy-reply-threshold", 100)
        loop = threading.Thread(target=self.loop_until_killed, args=[store])
        loop.start()
        try:
            yield
        finally:
            store.client.script_kill()
            loop.join()

    def loop_until_killed(self, store: Redis) -> None:
        with store.connect("admin") as client, pytest.raises(Exception, match="killed"):
            client.eval("while true do end", 0)


class TestWhatAJobLeavesRunning:
    def test_a_thread_that_goes_on_asking_takes_no_message_of_the_next_job(
        self, worker: Start, run: Run, effects: Path
    ) -> None:
        function = worker()
        assert is_own(run(function, "leave_asking"))
        assert all(is_own(run(function, "own")) for _ in range(20))
        eventually(lambda: effects.read_text() == "the thread of leave_asking got True\n")

    def test_a_thread_that_goes_on_reporting_reports_nothing_of_the_next_job(
        self, worker: Start, run: Run, effects: Path
    ) -> None:
        function = worker()
        assert is_own(run(function, "leave_reporting"))
        job = run(function, "sleep 0.5")
        assert is_own(job)
        assert "progress" not in job
        assert effects.read_text() == "the thread of leave_reporting got Cancelled\n"

    @pytest.mark.parametrize("work", ["fork_and_return", "fork_and_raise"])
    def test_a_forked_child_that_returns_ends_no_job(self, worker: Start, run: Run, work: str) -> None:
        function = worker()
        assert is_own(run(function, work))
        assert is_own(run(function, "sleep 0.6"))
        assert is_own(run(function, "own"))

    def test_and_is_gone_then(self, worker: Start, run: Run, effects: Path) -> None:
        function = worker()
        run(function, "fork_and_return")
        eventually(lambda: effects.exists() and not alive(effects.read_text()))

    def test_a_forked_child_ends_with_its_own_exit_code(self, worker: Start, run: Run) -> None:
        assert run(worker(), "fork_and_exit")["result"] == 7

    def test_a_forked_child_has_no_connection_to_the_worker(self, worker: Start, run: Run, effects: Path) -> None:
        job = run(worker(), "fork_and_report")
        assert is_own(job)
        assert "progress" not in job
        assert effects.read_text().count("no forked one") == 2

    @pytest.mark.parametrize("leaving", ["a program", "a forked child"])
    def test_a_process_that_ends_between_two_jobs_costs_none_of_them(
        self, worker: Start, run: Run, effects: Path, leaving: str
    ) -> None:
        function = worker()
        idle = work_processes(function)
        assert is_own(run(function, f"die_later {leaving}"))
        eventually(lambda: effects.read_text().strip() and not any(alive(p.pid) for p in idle))
        assert is_own(run(function, "own"))
        eventually(lambda: not alive(effects.read_text()))


class TestACrash:
    @pytest.mark.parametrize(("how", "says"), [("exit", "exit code 3"), ("9", "signal 9"), ("11", "signal 11")])
    @pytest.mark.parametrize("work", ["start_and_die", "fork_and_die"])
    def test_what_the_process_has_started_ends_with_it(
        self, worker: Start, run: Run, effects: Path, work: str, how: str, says: str
    ) -> None:
        """A forked child has the socket too, which stays open."""
        function = worker()
        job = run(function, f"{work} {how}")
        assert job["error"]["type"] == "WorkProcessDied"
        assert says in job["error"]["message"]
        eventually(lambda: not alive(effects.read_text()))
        assert is_own(run(function, "own"))

    def test_a_grandchild_hides_it_no_longer_than_a_heartbeat(self, worker: Start, run: Run) -> None:
        function = worker(JOB_TIMEOUT_SECONDS="60")
        assert run(function, "shell_and_die exit")["error"]["type"] == "WorkProcessDied"
        assert is_own(run(function, "own"))

    def test_work_whose_worker_is_killed_ends_with_all_that_it_has_started(
        self, worker: Start, submit, effects: Path
    ) -> None:
        function = worker()
        job_id = submit("start_and_sleep")
        threading.Thread(target=deliver_in_vain, args=[function, job_id]).start()
        eventually(lambda: effects.exists() and effects.read_text().strip())
        processes = work_processes(function)
        function.kill()
        eventually(lambda: not alive(effects.read_text()) and not any(alive(process.pid) for process in processes))

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_worker_that_is_stopped_leaves_nothing_of_a_process_that_died(
        self, worker: Start, run: Run, effects: Path, number: signal.Signals
    ) -> None:
        function = worker()
        idle = work_processes(function)
        run(function, "die_later a program")
        eventually(lambda: effects.read_text().strip() and not any(alive(p.pid) for p in idle))
        function.process.send_signal(number)
        function.process.wait(20)
        eventually(lambda: not alive(effects.read_text()))

    def test_whatever_leaves_an_attempt_without_an_outcome_ends_the_process(self) -> None:
        """A signal whose handler raises, in a worker that is this process; no Redis is there: heartbeats are missed."""

        class Left(BaseException):
            pass

        class AtTheFirstHeartbeat(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                signal.raise_signal(signal.SIGUSR1)

        def leave(*_: object) -> None:
            raise Left

        handler = AtTheFirstHeartbeat()
        logging.getLogger("knative_jobs.worker").addHandler(handler)
        before = signal.signal(signal.SIGUSR1, leave)
        try:
            launcher.ready()
            process = launcher.take()
            process.release()
            with pytest.raises(Left):
                attempt._run(
                    state.Claim("0e399b77-54a3-486b-b458-49fc4545f2da", 1, 0, "default", "a", "b", "", "", "", "", "")
                )
            assert process.has_ended()
            assert process not in launcher._living
        finally:
            logging.getLogger("knative_jobs.worker").removeHandler(handler)
            signal.signal(signal.SIGUSR1, before)
            launcher._end_all()


class TestWhatWorkRaises:
    @pytest.mark.parametrize(
        ("work", "kind", "says"),
        [
            ("raise_cancelled_error", "CancelledError", "by a library"),
            ("raise_keyboard_interrupt", "KeyboardInterrupt", "somebody"),
            ("raise_base_exception", "Unusual", "rare"),
            ("raise_without_message", "BrokenError", "__str__ raised ZeroDivisionError"),
            ("raise_file_name", "ValueError", "caf\ufffd.txt"),
            ("retry_after inf", "ValueError", "finite number of seconds"),
            ("retry_after nan", "ValueError", "finite number of seconds"),
            ("retry_after_all", "Retry", "after 1 seconds"),
        ],
    )
    def test_it_is_the_error(self, worker: Start, run: Run, work: str, kind: str, says: str) -> None:
        function = worker()
        pids = [process.pid for process in work_processes(function)]
        job = run(function, work)
        assert (job["status"], job["error"]["type"]) == ("failed", kind)
        assert says in job["error"]["message"]
        assert "unruly_work.py" in job["error"]["traceback"]
        assert is_own(run(function, "own"))
        assert [process.pid for process in work_processes(function)] == pids, "the process goes on"


class TestStandardStreams:
    @pytest.mark.parametrize("work", ["close_output", "take_output_away", "replace_output", "close_descriptors"])
    def test_work_that_closes_its_output_loses_no_result(self, worker: Start, run: Run, work: str) -> None:
        function = worker()
        assert is_own(run(function, work))
        assert is_own(run(function, "own"))

    @pytest.mark.parametrize("work", ["close_output", "take_output_away"])
    def test_the_next_job_can_print(self, worker: Start, run: Run, work: str) -> None:
        function = worker()
        run(function, work)
        assert is_own(run(function, "say hello"))
        assert "| hello" in function.log()

    def test_standard_input_is_at_its_end_for_the_work_and_what_it_starts(self, worker: Start, run: Run) -> None:
        assert run(worker(), "sort_input")["result"] == ""


@pytest.mark.parametrize("work", ["a_coroutine", "wrapped", "an_object"])
def test_what_can_be_awaited_is(worker: Start, run: Run, work: str) -> None:
    assert is_own(run(worker(JOB_WORK=f"unruly_work:{work}"), "anything"))
    assert is_own(run(worker(), work))


class TestResults:
    @pytest.mark.parametrize("work", ["nested 100", "nested_objects 100", "many_digits 4300", "long_string_of_digits"])
    def test_every_endpoint_gives_back_what_was_taken(self, worker: Start, run: Run, endpoint: Start, work) -> None:
        job = run(worker(), work)
        assert job["status"] == "complete"
        assert shown(endpoint, str(job["id"]), "completed_jobs") == [job] * 4

    @pytest.mark.parametrize(
        ("work", "says"),
        [
            ("nested 101", "more than 100 deep"),
            ("nested_objects 101", "more than 100 deep"),
            ("nested 980", "more than 100 deep"),
            ("nested 5000", "recursion"),
            ("many_digits 4301", "more than 4300 digits"),
            ("many_digits 5000", "more than 4300 digits"),
        ],
    )
    def test_what_cannot_be_read_everywhere_is_refused(
        self, worker: Start, run: Run, endpoint: Start, work: str, says: str
    ) -> None:
        job = run(worker(), work)
        assert job["status"] == "failed"
        assert says in job["error"]["message"]
        assert shown(endpoint, str(job["id"]), "failed_jobs") == [job] * 4


@pytest.mark.parametrize("number", ["1e999", "-0.5", "12345678901234567890", "7" * 4000])
def test_any_number_that_can_be_submitted_reaches_the_work(
    worker: Start, endpoint: Start, store: Redis, status, number: str
) -> None:
    body = f'{{"start": "end_of", "end": {number}}}'
    job_id = endpoint("jobs").request("POST", "/jobs", body=body).json()["id"]
    worker().deliver(job_id)
    assert status(job_id)["result"] == repr(json.loads(number))


class TestMemory:
    @pytest.mark.parametrize(
        ("work", "kind"),
        [
            ("allocate 1000", "MemoryError"),
            ("allocate_bit_by_bit 1000", "MemoryError"),
            ("allocate_in_c_and_crash 1000", "WorkProcessDied"),
        ],
    )
    def test_work_that_runs_out_of_it_is_an_error_and_the_worker_goes_on(
        self, worker: Start, run: Run, work: str, kind: str
    ) -> None:
        function = worker(WORK_MEMORY_MIB="200")
        job = run(function, work)
        assert (job["status"], job["error"]["type"]) == ("failed", kind)
        assert run(function, "allocate 50")["status"] == "complete"
        assert function.process.poll() is None

    def test_without_a_limit_there_is_none(self, worker: Start, run: Run) -> None:
        assert run(worker(), "allocate 300")["status"] == "complete"

    def test_too_little_to_start_with_names_the_variable(self, start: Start, effects: Path) -> None:
        function = start("worker", JOB_WORK="unruly_work:work", EFFECTS=str(effects), WORK_MEMORY_MIB="1")
        eventually(lambda: function.process.poll() is not None)
        assert "WORK_MEMORY_MIB" in function.log()


DETAILS = {
    "complete": [['"of another"'], ["null"], ["no JSON"], [7], []],
    "failed": [[{"type": "Forged", "message": "of another"}], ["no error"]],
    "error": [[{"type": "Forged", "message": "of another"}, None], [{}, 1e999]],
    "cancelled": [[]],
    "progress": [[0.5, "of another"], [0.5, 7], [1e999, ""]],
    "ready": [[]],
    "work": [[1, 2, ""]],
}


def steps(whose: list[str], cut: st.SearchStrategy[int]) -> st.SearchStrategy[tuple[object, ...]]:
    words = st.sampled_from([(word, details) for word, all_ in DETAILS.items() for details in all_])
    return st.builds(lambda name, word, cut: (name, *word, cut), st.sampled_from(whose), words, cut)


PLANS = st.lists(
    st.one_of(
        steps(OTHERS, st.just(0)),
        steps([*OTHERS, "mine", "nobody's"], st.integers(1, 60)),  # truncated: it runs into what follows
        st.just(("mine", "progress", [0.25, "mine"], 0)),
        st.just(("mine", "complete", ['"told twice"'], 0)),
        st.just(("nobody's", "ready", [], 0)),
        st.just(("the end of the job", "", [], 0)),
        st.builds(lambda data: ("bytes", data.hex(), [], 0), st.binary(max_size=40)),
    ),
    max_size=6,
)


class TestMessages:
    @pytest.fixture
    def one_worker(self, worker: Start) -> Function:
        return worker(JOB_BACKOFF_SECONDS="0")

    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(plan=PLANS)
    def test_whatever_is_sent_a_job_ends_with_its_own_outcome(
        self, one_worker: Function, run: Run, plan: list[tuple[object, ...]]
    ) -> None:
        job = run(one_worker, f"send {json.dumps(plan)}")
        if job["status"] == "complete":
            own = {f"result of {job['id']}"} | {"told twice" for step in plan if step[0] == "mine"}
            assert job["result"] in own
        else:
            assert job["error"]["type"] == "WorkProcessDied", job
        assert "of another" not in json.dumps(job | {"start": ""})
        for _ in range(2):
            job = run(one_worker, "own")
            assert is_own(job) or job["error"]["type"] == "WorkProcessDied"
            assert "progress" not in job

    @pytest.mark.parametrize("whose", OTHERS)
    @pytest.mark.parametrize("word", ["complete", "failed", "error", "cancelled", "progress"])
    def test_a_message_of_another_attempt_is_dropped(self, worker: Start, run: Run, whose: str, word: str) -> None:
        function = worker()
        job = run(function, f"send {json.dumps([(whose, word, DETAILS[word][0], 0)])}")
        assert is_own(job)
        assert "progress" not in job
        assert "is dropped" in function.log()

    @pytest.mark.parametrize("data", [b"\n", b"{}\n", b"[]\n", b"\xff\n", b"[1]\n", b"[NaN]\n", b"[" * 100_000 + b"\n"])
    def test_what_is_no_message_ends_the_process(self, worker: Start, run: Run, data: bytes) -> None:
        function = worker()
        job = run(function, f"send {json.dumps([('bytes', data[:900].hex(), [], 0), ('bytes', '0a', [], 0)])}")
        assert job["error"]["type"] == "WorkProcessDied"
        assert "not a message" in job["error"]["message"]
        assert is_own(run(function, "own"))

    @settings(deadline=None)
    @given(
        messages=st.lists(st.lists(st.one_of(st.text(), st.integers(), st.none())).map(lambda parts: ["a", *parts])),
        pieces=st.lists(st.integers(1, 50), min_size=1),
    )
    def test_a_message_arrives_as_it_was_sent_in_whatever_pieces(
        self, messages: list[list[object]], pieces: list[int]
    ) -> None:
        with ends() as (ours, theirs, channel):
            for message in messages:
                Channel(theirs).send(*message)
            theirs.close()
            data = ours.makefile("rb").read()
        came = []
        with ends() as (_, theirs, channel):
            while data:
                for size in pieces:
                    theirs.sendall(data[:size])
                    data = data[size:]
                    channel.read(wait=False)
                    while (message := channel.received()) is not None:
                        came.append(message)
        assert came == messages

    def test_a_cancellation_that_comes_with_the_job_is_heard(self) -> None:
        """As it does when the process was being started meanwhile: both are read at once."""
        with ends() as (_, theirs, channel):
            Channel(theirs).send("work", "id", 2)
            Channel(theirs).send("cancel", "id", 1)
            Channel(theirs).send("cancel", "id", 2)
            assert channel.receive() == ["work", "id", 2]
            assert not one_attempt.Handle(channel, "id", 3, 300).cancel_requested()
        with ends() as (_, theirs, channel):
            Channel(theirs).send("work", "id", 2)
            Channel(theirs).send("cancel", "id", 2)
            assert channel.receive() == ["work", "id", 2]
            assert one_attempt.Handle(channel, "id", 2, 300).cancel_requested()

    @settings(deadline=None)
    @given(data=st.binary(max_size=300))
    def test_of_any_bytes_there_is_a_message_or_an_error(self, data: bytes) -> None:
        with ends() as (_, theirs, channel):
            theirs.sendall(data + b"\n")
            channel.read()
            try:
                message = channel.received()
            except BadMessageError:
                return
            assert isinstance(message[0], str)

    @given(value=st.recursive(st.one_of(st.none(), st.booleans(), st.integers(), st.text()), st.lists, max_leaves=30))
    def test_a_result_that_is_sent_is_one_that_is_taken(self, value: object) -> None:
        assert is_result(result_text(value))

    @given(text=st.text(st.characters(), max_size=50))
    def test_a_text_is_storable_and_the_same_where_it_was(self, text: str) -> None:
        stored = storable(text)
        assert stored.encode().decode() == stored
        assert stored == text or any("\ud800" <= c <= "\udfff" for c in text)


@contextmanager
def ends() -> Iterator[tuple[socket.socket, socket.socket, Channel]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs, Channel(ours)


def shown(endpoint: Start, job_id: str, listing: str) -> list[Record]:
    """How the job is shown by each endpoint that shows one."""
    events = endpoint("job_events").request("GET", f"/job_events?job_id={job_id}").data.decode()
    (data,) = (line.removeprefix("data:") for line in events.splitlines() if line.startswith("data:"))
    return [
        endpoint("jobs_status").request("GET", f"/jobs_status?job_id={job_id}&wait=1").json(),
        json.loads(data),
        *endpoint(listing).request("GET", f"/{listing}").json(),
        *endpoint("dashboard").request("GET", "/dashboard/jobs").json(),
    ]


def work_processes(function: Function) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(function.process.pid).children(recursive=True):
        with suppress(psutil.Error):  # it has just ended
            if "knative_jobs.work.process" in child.cmdline():
                found.append(child)
    return found


def deliver_in_vain(function: Function, job_id: str) -> None:
    with pytest.raises(Exception, match=r"Connection|Protocol|closed"):
        function.deliver(job_id)
