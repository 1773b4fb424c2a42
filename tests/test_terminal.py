"""`kn jobs`: the API from a terminal, against the API of one machine."""

import json
import os
import pty
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT, UNKNOWN_ID, free_port, http
from tests.e2e.conftest import one_machine

Run = Callable[..., "subprocess.CompletedProcess[str]"]
TOKENS = " ".join(f"{name}:{name}:{sha256(name.encode()).hexdigest()}" for name in ("read", "write"))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    settings = {"JOB_WORK": "talking_work:work", "PYTHONPATH": str(ROOT / "tests"), "API_TOKENS": TOKENS}
    with one_machine(str(tmp_path_factory.mktemp("data")), JOB_MAX_ATTEMPTS="1", **settings) as local:
        yield local.url


@pytest.fixture
def kn(url: str) -> Run:
    """Run `kn-jobs` as a program does, with no terminal."""

    def kn(*args: str, code: int = 0, given: str = "", **env: str) -> "subprocess.CompletedProcess[str]":
        own = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "KNATIVE_JOBS_TOKEN": "write", "COLUMNS": "200"}
        done = subprocess.run(
            [sys.executable, "-P", "-m", "kn_jobs", *args],
            env={**own, "KNATIVE_JOBS_URL": url, **env},
            input=given,
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    return kn


def shown(done: "subprocess.CompletedProcess[str]") -> Any:
    return json.loads(done.stdout)


class TestSubmit:
    def test_a_job_is_submitted_and_shown(self, kn: Run) -> None:
        job = shown(kn("submit", "nothing", "2", "--key", "customer 17", "--max-attempts", "1", "-o", "json"))
        assert (job["start"], job["end"], job["key"], job["status"]) == ("nothing", "2", "customer 17", "submitted")
        assert job["id"] in kn("list", "--key", "customer 17").stdout
        assert yaml.safe_load(kn("get", job["id"], "-o", "yaml").stdout)["id"] == job["id"]
        assert "customer 17" in kn("get", job["id"]).stdout

    @pytest.mark.parametrize(("start", "status", "code"), [("nothing", "complete", 0), ("fail-twice", "failed", 3)])
    def test_the_exit_code_says_how_a_job_that_is_waited_for_ended(
        self, kn: Run, start: str, status: str, code: int
    ) -> None:
        assert shown(kn("submit", start, "1", "--wait", "-o", "json", code=code))["status"] == status

    def test_the_input_goes_as_it_is_written(self, kn: Run, url: str, tmp_path: Path) -> None:
        text = '{"b": 1.10, "a": [12345678901234567890]}'
        (tmp_path / "input.json").write_text(text)
        for given in (["--input", text], ["--input", "-"], ["--input", f"@{tmp_path / 'input.json'}"]):
            submit = ("submit", "--kind", "word-count", *given, "--delay", "600", "-o", "json")
            job_id = shown(kn(*submit, given=text))["id"]
            bearer = {"Authorization": "Bearer read"}
            record = http.request("GET", f"{url}/jobs_status?job_id={job_id}", headers=bearer).data.decode()
            assert f'"input":{text}' in record
            kn("cancel", job_id)

    def test_an_idempotency_key_submits_once(self, kn: Run) -> None:
        ids = {shown(kn("submit", "nothing", "1", "--idempotency-key", "k1", "-o", "json"))["id"] for _ in range(2)}
        assert len(ids) == 1

    @pytest.mark.parametrize("text", ["{", "@/nowhere"])
    def test_input_that_is_no_json_is_refused_before_anything_is_sent(self, kn: Run, text: str) -> None:
        assert "--input is no JSON" in kn("submit", "--kind", "word-count", "--input", text, code=2).stderr

    def test_a_refusal_is_told_in_the_words_of_the_api(self, kn: Run) -> None:
        assert "Error: The body has no end." in kn("submit", "1", code=1).stderr
        assert "There is no job" in kn("get", UNKNOWN_ID, code=1).stderr


class TestLog:
    def test_a_log_is_shown_and_followed_to_its_end(self, kn: Run) -> None:
        job_id = shown(kn("submit", "say", "1", "-o", "json"))["id"]
        followed = kn("log", "-f", job_id).stdout
        assert followed.startswith("--- attempt 1 ---\nprinted first, Jürgen\n")
        assert followed == kn("log", job_id).stdout
        assert kn("log", job_id, "--attempt", "1").stdout == followed.removeprefix("--- attempt 1 ---\n")


class TestSteering:
    def delayed(self, kn: Run, count: int, key: str) -> list[str]:
        submit = ("submit", "nothing", "1", "--delay", "600", "--key", key, "-o", "json")
        return [shown(kn(*submit))["id"] for _ in range(count)]

    def test_named_jobs_are_cancelled_retried_and_deleted(self, kn: Run) -> None:
        ids = self.delayed(kn, 2, "named")
        assert kn("cancel", *ids).stdout == "".join(f"{job_id} cancelled\n" for job_id in ids)
        assert kn("retry", ids[0]).stdout == f"{ids[0]} submitted\n"
        kn("cancel", ids[0])
        kn("delete", *ids)
        assert kn("list", "--key", "named").stderr == "There is no such job.\n"

    def test_all_jobs_that_options_ask_for(self, kn: Run) -> None:
        key = str(uuid.uuid4())
        self.delayed(kn, 3, key)
        assert kn("cancel", "--key", key, "--dry-run").stdout == "3 jobs would be cancelled\n"
        assert kn("cancel", "--key", key).stdout == "3 jobs cancelled\n"
        assert kn("retry", "--key", key, "--status", "cancelled").stdout == "3 jobs retried\n"
        assert [job["status"] for job in shown(kn("list", "--key", key, "-o", "json"))] == ["submitted"] * 3
        kn("cancel", "--key", key)

    def test_it_must_be_said_which_jobs(self, kn: Run) -> None:
        for args in (["cancel"], ["retry"], ["cancel", UNKNOWN_ID, "--key", "a"], ["cancel", UNKNOWN_ID, "--dry-run"]):
            kn(*args, code=2)


class TestLooking:
    def test_kinds_with_their_counts(self, kn: Run) -> None:
        found = {kind["kind"]: kind["counts"] for kind in shown(kn("kinds", "-o", "json"))}
        assert found.keys() >= {"default", "word-count"}
        assert "SUBMITTED" in kn("kinds").stdout

    def test_a_live_table_until_ctrl_c(self, url: str) -> None:
        env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "TERM": "xterm", "KNATIVE_JOBS_URL": url}
        command = [sys.executable, "-P", "-m", "kn_jobs", "watch", "--every", "0.2"]
        screen, terminal = pty.openpty()
        with subprocess.Popen(command, env=env | {"KNATIVE_JOBS_TOKEN": "read"}, stdout=terminal) as watching:
            os.close(terminal)
            seen = b""
            while seen.count(b"KIND") < 4:  # two tables, twice
                seen += os.read(screen, 65536)
            watching.send_signal(signal.SIGINT)
            with suppress(OSError):  # the terminal is gone
                while os.read(screen, 65536):
                    pass
            assert watching.wait(50) == 0
        os.close(screen)

    def test_more_jobs_than_a_page_are_listed(self, kn: Run, url: str) -> None:
        job = {"start": "1", "end": "2", "key": "pages", "delay": 600}
        for count in (1000, 2):
            body, bearer = json.dumps([job] * count), {"Authorization": "Bearer write"}
            assert http.request("POST", f"{url}/jobs", body=body, headers=bearer).status == 202
        assert len(shown(kn("list", "--key", "pages", "-n", "1001", "-o", "json"))) == 1001
        assert kn("cancel", "--key", "pages").stdout == "1002 of 1002 jobs: complete\n", "by a job of its own"


class TestWhereAndWho:
    def test_no_token_is_told_where_one_is_read_from(self, kn: Run) -> None:
        assert "KNATIVE_JOBS_TOKEN_FILE" in kn("list", code=1, KNATIVE_JOBS_TOKEN="").stderr

    def test_a_token_comes_from_a_file(self, kn: Run, tmp_path: Path) -> None:
        (tmp_path / "token").write_text("read\n")
        kn("list", KNATIVE_JOBS_TOKEN="", KNATIVE_JOBS_TOKEN_FILE=str(tmp_path / "token"))
        missing = kn("list", code=1, KNATIVE_JOBS_TOKEN="", KNATIVE_JOBS_TOKEN_FILE=str(tmp_path / "none"))
        assert "KNATIVE_JOBS_TOKEN_FILE" in missing.stderr

    def test_a_token_that_may_read_changes_nothing(self, kn: Run) -> None:
        refused = kn("cancel", "--status", "submitted", code=1, KNATIVE_JOBS_TOKEN="read")
        assert "may only read" in refused.stderr

    def test_an_api_that_does_not_answer(self, kn: Run) -> None:
        nowhere = f"http://127.0.0.1:{free_port()}"
        assert f"{nowhere} does not answer" in kn("list", code=1, KNATIVE_JOBS_URL=nowhere).stderr

    def test_the_cluster_of_kubectl_where_nothing_else_is_said(self, kn: Run, url: str, tmp_path: Path) -> None:
        service = json.dumps({"status": {"url": url}})
        (tmp_path / "kubectl").write_text(f"#!/bin/sh\n[ $5 = mine ] || exit 1\necho '{service}'\n")
        (tmp_path / "kubectl").chmod(0o755)
        path = f"{tmp_path}:{os.environ['PATH']}"
        kn("kinds", KNATIVE_JOBS_URL="", KNATIVE_JOBS_NAMESPACE="mine", PATH=path)
        assert "kubectl says" in kn("kinds", code=1, KNATIVE_JOBS_URL="", PATH=path).stderr

    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_a_shell_can_complete_it(self, kn: Run, shell: str) -> None:
        assert "_KN_JOBS_COMPLETE" in kn("completion", shell).stdout
