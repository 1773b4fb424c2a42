"""Each function starts alone, by the ordinary means of functions-framework and of the image."""

import pytest

from tests.conftest import FRAMEWORK, ROOT, Start, eventually

FUNCTIONS = sorted(path.stem for path in (ROOT / "functions").glob("*.py"))


def healthy(start: Start, target: str, **given: object) -> bool:
    function = start(target, **given).ready()
    answers = [function.request("GET", path) for path in ("/health/readiness", "/health/liveness")]
    return [answer.status for answer in answers] == [200, 200]


@pytest.mark.parametrize("target", FUNCTIONS)
class TestEachFunction:
    def test_by_options(self, start: Start, target: str) -> None:
        options = [FRAMEWORK, "--source", f"functions/{target}.py", "--target", target]
        assert healthy(start, target, command=options, FUNCTION_SOURCE="", FUNCTION_TARGET="", PYTHONPATH="")

    def test_by_environment(self, start: Start, target: str) -> None:
        assert healthy(start, target, command=[FRAMEWORK], PYTHONPATH="")

    def test_as_in_the_image(self, start: Start, target: str) -> None:
        service = target.replace("_", "-")
        assert healthy(start, target, K_SERVICE=service, FUNCTION_TARGET="", FUNCTION_SOURCE="")


def test_a_function_under_another_name_is_named_by_a_variable(start: Start) -> None:
    """As `func` deploys it: see func.yaml."""
    function = start("jobs", K_SERVICE="submit", FUNCTION_SOURCE="").ready()
    assert function.request("POST", "/jobs", body=b'{"start": 1, "end": 2}').status == 202


def test_a_function_without_any_name_ends_and_says_which_variable_is_missing(start: Start) -> None:
    function = start("jobs", FUNCTION_TARGET="", FUNCTION_SOURCE="")
    eventually(lambda: function.process.poll() is not None)
    assert function.process.returncode
    assert "FUNCTION_TARGET must name the function" in function.log()


def test_a_job_is_done_by_the_functions_alone(start: Start) -> None:
    """Without a broker: what a Trigger does, curl can do."""
    jobs, worker = (
        start(name, command=[FRAMEWORK], PYTHONPATH="", JOB_SECONDS="0.1").ready() for name in ("jobs", "worker")
    )
    job_id = jobs.request("POST", "/jobs", body=b'{"start": 1, "end": 2}').json()["id"]
    assert worker.deliver(job_id) == 204
    status = start("jobs_status", command=[FRAMEWORK], PYTHONPATH="").ready()
    assert status.request("GET", f"/?job_id={job_id}").json()["status"] == "complete"
