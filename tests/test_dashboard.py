"""The dashboard and the viewer of the API's description in a real browser, on one machine.

SCREENSHOTS names a folder for pictures: SCREENSHOTS=docs makes docs/dashboard.png anew.
"""

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright

from tests.browser import environment, program
from tests.conftest import PATIENCE_S, UNKNOWN_ID, Start
from tests.e2e.conftest import Api, one_machine
from tests.tokens import READER, TOKENS

QUIET = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
QUIET += " --disable-component-update --disable-sync"
DOMAIN = "knative-jobs.internal"
"""Where each Service has a host of its own; the browser takes all of them for this machine."""
REPORT_VIOLATIONS = """
document.addEventListener('securitypolicyviolation', (e) => console.error(`${e.violatedDirective} ${e.blockedURI}`))
"""

Open = Callable[..., Page]
expect.set_options(timeout=1000 * PATIENCE_S)


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[one_machine]:
    folder = tmp_path_factory.mktemp("dashboard")
    work = {
        "JOB_WORK": "sample_work:work",
        "EFFECTS": str(folder / "effects"),
        "PYTHONPATH": str(Path(__file__).parent),
    }
    with one_machine(str(folder / "data"), **work, JOB_MAX_ATTEMPTS="1", WORKER_GRACE_SECONDS="0.1") as local:
        yield local


@pytest.fixture(scope="module")
def api(local: one_machine) -> Api:
    return Api(local.url)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    to_here = f"--host-resolver-rules=MAP *.{DOMAIN} 127.0.0.1"
    with sync_playwright() as playwright:
        arguments = [*QUIET.split(), to_here]
        chromium = playwright.chromium.launch(executable_path=program(), args=arguments, env=environment())
        yield chromium
        chromium.close()


@pytest.fixture
def expected() -> list[str]:
    """What the console may say in a test; a browser reports every answer that is an error."""
    return []


@pytest.fixture
def visit(local: one_machine, browser: Browser, expected: list[str]) -> Iterator[Open]:
    """Open a page in a window of its own. What its console says against it fails the test."""
    said: list[str] = []
    windows = []

    def note(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            said.append(f"{message.text} {message.location['url']}")

    def visit(path: str = "/", address: str = local.url, **window: object) -> Page:
        windows.append(browser.new_context(viewport=window.pop("viewport", {"width": 1280, "height": 900}), **window))
        page = windows[-1].new_page()
        page.set_default_timeout(1000 * PATIENCE_S)
        page.add_init_script(REPORT_VIOLATIONS)
        page.on("console", note)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
        page.goto(address + path)
        return page

    yield visit
    for window in windows:
        window.close()
    assert not [line for line in said if not any(re.search(allowed, line) for allowed in expected)]


@pytest.fixture
def picture(tmp_path: Path) -> Callable[[Page, str], Path]:
    def picture(page: Page, name: str) -> Path:
        path = Path(os.environ.get("SCREENSHOTS") or tmp_path) / f"{name}.png"
        page.screenshot(path=path, animations="disabled")
        return path

    return picture


def row(page: Page, job_id: str) -> object:
    return page.locator(f"#rows tr[data-id='{job_id}']")


def status(page: Page, job_id: str) -> object:
    return page.locator(f"#rows tr[data-id='{job_id}'] .badge")


def may_go_on(folder: Path, step: int) -> None:
    """Let the work `steps FOLDER` go on up to a step; after the fifth it ends."""
    folder.mkdir(exist_ok=True)
    for number in range(1, step + 1):
        (folder / str(number)).touch()


def test_jobs_of_every_status_and_the_last_hour_are_seen(
    visit: Open, api: Api, picture: Callable, tmp_path: Path
) -> None:
    may_go_on(tmp_path / "a", 3)
    may_go_on(tmp_path / "b", 1)
    for what in ("return", "fail unknown-author", "report 0.5", "return", "raise oh", "return"):
        api.submit(what, "Moby Dick")
    long = ("steps {}/a", "steps {}/b", "return", "return")
    ids = [api.submit(what.format(tmp_path), "War and Peace")["id"] for what in long]
    api.request("POST", f"/cancel_job?job_id={ids[3]}")
    page = visit()
    expect(status(page, ids[1])).to_have_text("in progress")
    expect(status(page, ids[3])).to_have_text("cancelled")
    expect(page.locator("#count-failed")).to_have_text("2")
    expect(page.locator("#count-")).to_have_text("10")
    expect(page.locator("#throughput > title")).to_contain_text("complete, 2 failed, 1 cancelled")
    heights = page.locator("#throughput rect[data-status=failed]").evaluate_all(
        "all => all.map(r => +r.getAttribute('height'))"
    )
    assert len(heights) == 60
    assert sum(heights) > 0
    expect(page.locator("#waiting > title")).to_contain_text("Mean time that jobs waited")
    bar = row(page, ids[0]).locator("progress")
    expect(bar).to_have_attribute("value", "0.6")
    assert picture(page, "dashboard").stat().st_size < 200_000
    for name in "ab":
        may_go_on(tmp_path / name, 5)
    for job_id in ids[:2]:
        api.wait_for(job_id, "complete")


def test_a_job_is_submitted_and_its_bar_moves_to_the_end(visit: Open, tmp_path: Path) -> None:
    page = visit()
    page.get_by_label("Start", exact=True).fill(f"steps {tmp_path}")
    page.get_by_label("End", exact=True).fill("2")
    page.get_by_role("button", name="Submit").click()
    job_id = page.locator("#messages a").get_attribute("href").removeprefix("#job=")
    bar = row(page, job_id).locator("progress")
    for step in range(1, 5):
        may_go_on(tmp_path, step)
        expect(bar).to_have_attribute("value", f"{step / 5:g}")  # it moves by itself
    may_go_on(tmp_path, 5)
    expect(status(page, job_id)).to_have_text("complete")
    expect(bar).to_have_attribute("value", "1")


def test_a_running_job_is_cancelled(visit: Open, api: Api) -> None:
    job_id = api.submit("watch-cancelled")["id"]
    page = visit()
    expect(status(page, job_id)).to_have_text("in progress")
    row(page, job_id).get_by_role("button", name="Cancel").click()
    expect(page.locator("#messages")).to_contain_text("asked to stop")
    expect(status(page, job_id)).to_have_text("cancelled")
    assert api.status(job_id)["status"] == "cancelled"
    expect(row(page, job_id).get_by_role("button")).to_have_text(["Retry"])


def test_a_failed_job_is_tried_again_where_its_record_is_open(visit: Open, api: Api) -> None:
    job_id = api.submit("raise-until-attempt 2")["id"]
    api.wait_for(job_id, "failed")
    page = visit(f"/#job={job_id}")
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("#job-record")).to_contain_text("ValueError: not yet")
    dialog.get_by_role("button", name="Retry").click()
    expect(dialog.locator("#job-status")).to_have_text("complete")
    expect(dialog.locator("#job-timeline li")).to_contain_text(["submitted", "attempt 2 began", "complete, after"])


def test_a_change_that_comes_too_late_is_told_why(visit: Open, api: Api, expected: list[str], tmp_path: Path) -> None:
    expected.append("409 .*/cancel_job")
    job_id = api.submit(f"wait-for {tmp_path}/go")["id"]
    page = visit()
    expect(row(page, job_id)).to_be_visible()
    page.evaluate("Object.defineProperty(document, 'hidden', {value: true})")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    asked: list[Request] = []
    page.on("request", lambda request: asked.append(request))
    (tmp_path / "go").touch()
    api.wait_for(job_id, "complete")
    page.evaluate("0")  # what it asked for meanwhile is told with the next call
    assert not asked, "nobody sees the page, so it asks for nothing"
    row(page, job_id).get_by_role("button", name="Cancel").click()
    expect(page.locator("#messages .problem")).to_contain_text("The job is complete; only one that is submitted")


def test_jobs_are_filtered_by_status(visit: Open, api: Api) -> None:
    job_id = api.submit("fail why")["id"]
    api.wait_for(job_id, "failed")
    page = visit()
    page.get_by_role("radio", name=re.compile("failed")).check(force=True)
    expect(status(page, job_id)).to_have_text("failed")
    expect(page.locator("#rows tr:not(:has(.badge[data-status=failed]))")).to_have_count(0)
    page.get_by_role("radio", name=re.compile("all")).focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("radio", name=re.compile("submitted"))).to_be_checked()
    expect(page.locator("#empty")).to_have_text("No job is submitted.")


def test_a_job_is_found_by_its_id(visit: Open, api: Api, expected: list[str]) -> None:
    expected.append("404 .*/jobs_status")
    job_id = api.submit("return", 2.50)["id"]
    api.wait_for(job_id, "complete")
    page = visit()
    search = page.get_by_role("searchbox")
    search.fill(job_id[:8])
    search.press("Enter")
    expect(page.locator("#empty")).to_contain_text("To find one by its id, paste the whole of it.")
    search.fill(f" {job_id.upper()} ")
    search.press("Enter")
    dialog = page.get_by_role("dialog")
    expect(dialog.locator("#job-record")).to_contain_text("worker-ip")
    expect(page).to_have_url(re.compile(f"#job={job_id}$"))
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(search).to_be_focused()
    expect(page).not_to_have_url(re.compile("#"))
    search.fill(UNKNOWN_ID)
    page.get_by_role("button", name="Find").click()
    expect(dialog.get_by_role("alert")).to_contain_text(f"There is no job {UNKNOWN_ID}")


def test_jobs_are_found_by_their_key(visit: Open, api: Api) -> None:
    body = json.dumps(
        [{"start": "return", "end": 1, "key": key} for key in ("customer 17", "customer 18", "customer 17")]
    )
    made = [job["id"] for job in api.request("POST", "/jobs", body=body).json()]
    page = visit()
    expect(row(page, made[1]).locator(".key")).to_have_text("customer 18")
    search = page.get_by_role("searchbox")
    search.fill("customer 17")
    search.press("Enter")
    expect(page.locator("#rows tr")).to_have_count(2)
    expect(page.locator("#rows .key").filter(has_not_text="customer 17")).to_have_count(0)
    search.fill("")
    expect(row(page, made[1])).to_be_visible()


def test_all_jobs_of_a_status_are_cancelled_after_they_are_counted(visit: Open, api: Api) -> None:
    key = "all of them"
    body = json.dumps([{"start": "return", "end": 1, "key": key, "delay": 600}] * 3)
    made = [job["id"] for job in api.request("POST", "/jobs", body=body).json()]
    page = visit()
    search = page.get_by_role("searchbox")
    search.fill(key)
    search.press("Enter")
    expect(page.locator("#rows tr")).to_have_count(3)
    expect(page.locator("#all")).to_be_hidden()
    page.get_by_role("radio", name=re.compile("submitted")).check(force=True)
    page.get_by_role("button", name="Cancel all of them").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("Cancel 3 jobs?")
    expect(dialog).to_contain_text(f"All jobs with the status submitted, the key {key}.")
    dialog.get_by_role("button", name="Not now").click()
    assert api.status(made[0])["status"] == "submitted"
    page.get_by_role("button", name="Cancel all of them").click()
    dialog.get_by_role("button", name="Cancel 3 jobs").click()
    expect(page.locator("#messages")).to_contain_text("3 jobs are cancelled.")
    page.get_by_role("radio", name=re.compile("cancelled")).check(force=True)
    expect(page.locator("#rows tr")).to_have_count(3)
    page.get_by_role("button", name="Retry all of them").click()
    dialog.get_by_role("button", name="Retry 3 jobs").click()
    expect(page.locator("#messages")).to_contain_text("3 jobs are retried.")
    api.request("POST", f"/cancel_jobs?{urlencode({'key': key})}")


def test_what_the_work_says_is_seen_while_it_runs(visit: Open, api: Api, picture: Callable, tmp_path: Path) -> None:
    job_id = api.submit(f"say {tmp_path / 'go'}", 1)["id"]
    page = visit(f"/dashboard#job={job_id}")
    log = page.get_by_role("log", name="Log")
    expect(log).to_have_text(re.compile("^--- attempt 1 ---\\nwaiting\\n$"))
    picture(page, "dashboard-job")
    (tmp_path / "go").touch()
    expect(log).to_have_text(re.compile("waiting\\ngone\\n$"))
    expect(page.locator("#job-status")).to_have_text("complete")


def test_a_job_whose_work_says_nothing_shows_no_log(visit: Open, api: Api) -> None:
    job_id = api.submit("return", 1)["id"]
    api.wait_for(job_id, "complete")
    page = visit(f"/dashboard#job={job_id}")
    expect(page.locator("#job-record")).to_contain_text("finished-at")
    expect(page.locator("#job-said")).to_be_hidden()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing(visit: Open, api: Api, scheme: str, width: int) -> None:
    """https://github.com/dequelabs/axe-core: what WCAG asks for, as far as a program can tell."""
    job_id = api.submit("say", 1)["id"]
    api.submit("raise oh", 2)
    api.wait_for(job_id, "complete")
    page = visit(viewport={"width": width, "height": 900}, color_scheme=scheme)
    expect(row(page, job_id)).to_be_visible()

    def check() -> None:
        found = Axe().run(page).response["violations"]
        told = [(each["id"], each["help"], [node["html"][:200] for node in each["nodes"]]) for each in found]
        assert told == []

    check()
    page.get_by_role("radio", name=re.compile("failed")).check(force=True)
    page.locator("#all").click()
    expect(page.locator("#bulk")).to_be_visible()
    check()
    page.keyboard.press("Escape")
    page.goto(page.url.partition("#")[0] + f"#job={job_id}")
    expect(page.locator("#job-log")).to_contain_text("waiting")
    check()


def test_pages_go_to_older_jobs_and_back(visit: Open, api: Api) -> None:
    ids = [
        job["id"]
        for job in api.request("POST", "/jobs", json=[{"start": "return", "end": i} for i in range(25)]).json()
    ]
    page = visit()
    rows = page.locator("#rows tr")
    expect(rows.first).to_have_attribute("data-id", ids[24])
    expect(rows).to_have_count(20)
    page.get_by_role("button", name="Older").click()
    expect(rows.first).to_have_attribute("data-id", ids[4])
    expect(page.locator("#place")).to_have_text("Page 2")
    page.get_by_role("button", name="Newer").click()
    expect(rows.first).to_have_attribute("data-id", ids[24])
    expect(page.get_by_role("button", name="Newer")).to_be_disabled()


def test_a_row_stays_as_it_is_while_others_come(visit: Open, api: Api) -> None:
    job_id = api.submit("return")["id"]
    page = visit()
    link = row(page, job_id).get_by_role("link")
    link.focus()
    row(page, job_id).evaluate("row => { row.mark = 1; getSelection().selectAllChildren(row.querySelector('.start')) }")
    later = api.submit("return")["id"]
    expect(status(page, later)).to_have_text("complete")
    expect(status(page, job_id)).to_have_text("complete")
    expect(link).to_be_focused()
    assert row(page, job_id).evaluate("row => row.mark === 1 && getSelection().toString() === 'return'")


def test_what_a_job_was_given_is_shown_as_text(visit: Open, api: Api) -> None:
    bad = "<img src=x onerror=alert(1)>"
    job_id = api.submit(bad, f"</td><script>alert(2)</script>{bad}")["id"]
    failed = api.submit(f"raise {bad.replace(' ', '/')}", 2.50)["id"]
    api.wait_for(failed, "failed")
    page = visit()
    expect(row(page, job_id).locator(".start")).to_have_text(bad)
    for opened in (job_id, failed):
        row(page, opened).get_by_role("link").click()
        expect(page.locator("#job-record")).to_contain_text("<img")
        page.keyboard.press("Escape")
    assert page.locator("img, td script, dialog script").count() == 0


def test_numbers_are_shown_as_they_were_written(visit: Open, api: Api) -> None:
    body = b'{"start": 12345678901234567890, "end": 2.50}'
    job_id = api.request("POST", "/jobs", body=body).json()["id"]
    page = visit()
    expect(row(page, job_id).locator(".start")).to_have_text("12345678901234567890")
    expect(row(page, job_id).locator(".end")).to_have_text("2.50")


def test_it_is_dark_where_that_is_preferred_and_a_choice_is_remembered(visit: Open, picture: Callable) -> None:
    def is_dark(page: Page) -> bool:
        return bool(page.evaluate("getComputedStyle(document.body).backgroundColor === 'rgb(15, 18, 23)'"))

    assert not is_dark(visit())
    page = visit(color_scheme="dark")
    assert is_dark(page)
    picture(page, "dark")
    page.get_by_role("button", name="Dark").click()
    assert not is_dark(page)
    page.reload()
    assert not is_dark(page)


def test_all_of_it_works_with_a_keyboard_alone(visit: Open, api: Api) -> None:
    page = visit()
    expect(page.locator("#connection")).to_have_text("live")

    def tab_to(selector: str) -> None:
        for _ in range(70):
            page.keyboard.press("Tab")
            if page.evaluate("s => document.activeElement.matches(s)", selector):
                outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                assert outline != "none", "the focus is seen"
                return
        raise AssertionError(f"{selector} is not reached")

    tab_to("#start")
    page.keyboard.type("watch-cancelled")
    page.keyboard.press("Tab")
    page.keyboard.type("2")
    page.keyboard.press("Enter")
    newest = page.locator("#rows tr").first
    expect(newest.locator(".start")).to_have_text("watch-cancelled")
    job_id = newest.get_attribute("data-id")
    tab_to(f"tr[data-id='{job_id}'] a")
    page.keyboard.press("Enter")
    expect(page.locator("#job-status")).to_have_text("in progress")
    tab_to("#job-cancel")
    page.keyboard.press("Enter")
    expect(page.locator("#job-status")).to_have_text("cancelled")
    page.keyboard.press("Escape")
    expect(row(page, job_id).get_by_role("link")).to_be_focused()


def test_it_fits_a_phone(visit: Open, api: Api, picture: Callable) -> None:
    job_id = api.submit("x" * 4000, "y" * 4000)["id"]
    page = visit(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    expect(row(page, job_id)).to_be_visible()
    width = "document.documentElement.scrollWidth"
    assert page.evaluate(width) == 390
    picture(page, "phone")
    row(page, job_id).get_by_role("link").tap()
    expect(page.locator("#job-record")).to_contain_text("yyyy")
    assert page.evaluate(width) == 390
    assert page.evaluate("(d => d.scrollWidth <= d.clientWidth)(document.getElementById('job'))")
    picture(page, "phone-job")
    page.keyboard.press("Escape")
    small = page.locator("button:visible, main input:not([type=radio]):visible, .filters label").evaluate_all(
        "all => all.filter(e => e.getBoundingClientRect().height < 43).map(e => e.outerHTML)"
    )
    assert small == [], "a finger hits it"


def test_a_token_is_asked_for_where_it_is_needed(visit: Open, start: Start, expected: list[str]) -> None:
    expected.append("401 ")
    dashboard = start("dashboard", API_TOKENS=TOKENS).ready()
    page = visit(address=dashboard.url)
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("This needs a token")
    dialog.get_by_label("Your token").fill("nobody's")
    dialog.get_by_role("button", name="Use it").click()
    expect(dialog).to_contain_text("Nobody has this token")
    dialog.get_by_label("Your token").fill(READER)
    page.keyboard.press("Enter")
    expect(page.locator("#connection")).to_have_text("live")
    expect(dialog).to_have_count(0)
    page.reload()
    expect(page.locator("#connection")).to_have_text("live")
    assert page.evaluate("Object.values(localStorage).join() + document.cookie + location.href").count(READER) == 0


def test_what_is_away_is_told_and_comes_back(visit: Open, start: Start, expected: list[str]) -> None:
    expected += ["503 ", "ERR_CONNECTION_REFUSED"]
    dashboard = start("dashboard", REDIS_URL="redis://127.0.0.1:9/0").ready()
    page = visit(address=dashboard.url)
    expect(page.locator("#connection")).to_have_text("The store does not answer. Nothing was lost; try again shortly.")
    dashboard.kill()
    expect(page.locator("#connection")).to_contain_text("There is no answer")


def test_in_a_cluster_the_page_calls_each_service_at_its_host(visit: Open, local: one_machine, api: Api) -> None:
    page = visit(address=f"http://dashboard.{DOMAIN}:{local.port}")
    asked: list[Request] = []
    page.on("request", lambda request: asked.append(request))
    page.get_by_label("Start", exact=True).fill("raise oh")
    page.get_by_label("End", exact=True).fill("2")
    page.get_by_role("button", name="Submit").click()
    page.locator("#messages a").click()
    expect(page.locator("#job-status")).to_have_text("failed")
    page.locator("#job-retry").click()
    expect(page.locator("#job-timeline")).to_contain_text("attempt 2 began")
    hosts = {
        name: f"http://{name}.{DOMAIN}:{local.port}/" for name in ("jobs", "jobs-status", "retry-job", "dashboard")
    }
    for name, address in hosts.items():
        assert [request for request in asked if request.url.startswith(address)], name
    assert page.locator("#description").get_attribute("href") == f"http://openapi.{DOMAIN}:{local.port}/docs"


@pytest.mark.parametrize("host", ["127.0.0.1", f"openapi.{DOMAIN}"])
def test_the_api_is_read_and_tried_in_its_viewer(visit: Open, local: one_machine, picture: Callable, host: str) -> None:
    page = visit("/docs", address=f"http://{host}:{local.port}")
    expect(page.locator(".title")).to_contain_text("Knative jobs")
    picture(page, "docs")
    operation = page.locator("#operations-submit-submitJobs")
    operation.locator(".opblock-summary-control").click()
    operation.get_by_role("button", name="Execute").click()
    response = operation.locator(".live-responses-table .response").first
    expect(response.locator(".response-col_status")).to_contain_text("202")
    expect(response).to_contain_text('"status": "submitted"')
    service = "127.0.0.1" if host == "127.0.0.1" else f"jobs.{DOMAIN}"
    expect(operation.locator(".request-url")).to_contain_text(f"http://{service}:{local.port}/jobs")


def test_the_viewer_asks_for_a_token_where_it_is_needed(visit: Open, start: Start, expected: list[str]) -> None:
    expected.append("401 ")
    page = visit("/docs", address=start("openapi", API_TOKENS=TOKENS).ready().url)
    expect(page.get_by_role("status")).to_contain_text("This needs a token")
    page.get_by_label("Your token").fill(READER)
    page.keyboard.press("Enter")
    expect(page.locator(".title")).to_contain_text("Knative jobs")
    expect(page.locator(".btn.authorize.locked, .btn.authorize")).to_be_visible()


def test_an_open_job_is_followed_as_a_stream(visit: Open, api: Api, tmp_path: Path) -> None:
    page = visit()
    asked: list[Request] = []
    page.on("request", lambda request: asked.append(request))
    page.evaluate("id => location.hash = `job=${id}`", api.submit(f"steps {tmp_path}")["id"])
    bar = page.locator("#job-progress progress")
    for step in range(1, 5):
        may_go_on(tmp_path, step)
        expect(bar).to_have_attribute("value", f"{step / 5:g}")
    may_go_on(tmp_path, 5)
    expect(page.locator("#job-status")).to_have_text("complete")
    expect(bar).to_have_attribute("value", "1")
    assert [request for request in asked if "/job_events?" in request.url]
    assert len([request for request in asked if "/jobs_status?" in request.url]) <= 2


class TestKinds:
    """This machine has the kinds of `knative/kinds`."""

    def test_the_list_and_the_charts_are_of_the_kind_that_is_chosen(self, visit: Open, api: Api) -> None:
        body = b'{"kind": "word-count", "input": {"text": "to be or not to be"}}'
        counted = api.request("POST", "/jobs", body=body).json()
        other = api.submit(start="return", end="2")
        page = visit()
        expect(row(page, counted["id"]).locator(".kind")).to_have_text("word-count")
        expect(row(page, counted["id"]).locator(".start")).to_have_text('{"text":"to be or not to be"}')
        expect(row(page, other["id"]).locator(".kind")).to_have_text("default")
        page.get_by_label("Kind of job").select_option("word-count")
        expect(row(page, other["id"])).to_have_count(0)
        expect(row(page, counted["id"])).to_be_visible()
        expect(page.locator("#rows .kind").filter(has_not_text="word-count")).to_have_count(0)
        page.get_by_label("Kind of job").select_option("")
        expect(row(page, other["id"])).to_be_visible()

    def test_a_job_is_submitted_with_its_kind_and_input(self, visit: Open, api: Api) -> None:
        page = visit()
        page.get_by_label("Kind", exact=True).select_option("word-count")
        page.get_by_label("Input").fill('{"text": "to be", "exact": 1.10}')
        page.get_by_role("button", name="Submit").click()
        link = page.locator("#messages a")
        expect(link).to_be_visible()
        job_id = link.get_attribute("href").removeprefix("#job=")
        job = api.request("GET", f"/jobs_status?job_id={job_id}&wait=30")
        assert job.data.count(b'{"text": "to be", "exact": 1.10}') == 1
        assert (job.json()["kind"], job.json()["result"]["words"]) == ("word-count", 2)
        expect(page.get_by_label("Kind", exact=True)).to_have_value("word-count")

    def test_what_is_no_json_is_not_sent(self, visit: Open, api: Api) -> None:
        page = visit()
        page.get_by_label("Kind", exact=True).select_option("word-count")
        page.get_by_label("Input").fill("to be")
        page.get_by_role("button", name="Submit").click()
        expect(page.locator("#messages")).to_contain_text("The input is not JSON")
        expect(page.get_by_label("Input")).to_be_focused()
        expect(page.get_by_label("Input")).to_have_attribute("aria-invalid", "true")
