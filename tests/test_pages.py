"""The pages and what they ask for, as HTTP has it; `tests/test_dashboard.py` has them in a browser."""

import json
import re
from pathlib import Path
from urllib.parse import quote

import pytest

from knative_jobs.web import cors, pages
from tests.conftest import EXAMPLE, ROOT, UNKNOWN_ID, Function, Redis, Start, problem
from tests.tokens import READER, TOKENS, bearer

DOMAIN = "knative-jobs.example.com"
DASHBOARD = f"http://dashboard.{DOMAIN}"
FOREIGN = [
    "null",
    "http://evil.example",
    f"http://jobs.{DOMAIN}",
    "http://dashboard.other.example.com",
    f"http://dashboard.{DOMAIN}.evil.example",
    f"http://x.dashboard.{DOMAIN}",
    f"http://dashboard.{DOMAIN}:81",
    f"file://dashboard.{DOMAIN}",
]
FOLDER = ROOT / "functions" / "knative_jobs" / "web" / "page"


class TestOtherOrigins:
    """In a cluster the page calls each Service on a host of its own."""

    @pytest.mark.parametrize("origin", [DASHBOARD, f"https://openapi.{DOMAIN}"])
    def test_a_page_of_our_own_may_ask_before_it_has_a_token(self, start: Start, origin: str) -> None:
        jobs = start("jobs", API_TOKENS=TOKENS).ready()
        asking = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        answer = jobs.request("OPTIONS", "/jobs", headers={"Host": f"jobs.{DOMAIN}", "Origin": origin, **asking})
        assert (answer.status, answer.data) == (204, b"")
        assert answer.headers["Access-Control-Allow-Origin"] == origin
        assert answer.headers["Access-Control-Allow-Methods"] == "POST, GET, HEAD"
        allowed = answer.headers["Access-Control-Allow-Headers"].lower().split(", ")
        assert set(allowed) == {
            "authorization",
            "content-type",
            "idempotency-key",
            "last-event-id",
            "prefer",
            "traceparent",
        }
        assert answer.headers["Vary"] == "Origin"

    def test_it_may_read_every_answer_and_what_its_headers_say(self, start: Start, store: Redis) -> None:
        jobs = start("jobs", API_TOKENS=TOKENS).ready()
        ours = {"Host": f"jobs.{DOMAIN}", "Origin": DASHBOARD, "Sec-Fetch-Site": "same-site"}
        refused = jobs.request("POST", "/jobs", body=EXAMPLE, headers=ours)
        problem(refused, 401)
        submitted = jobs.request("POST", "/jobs", body=EXAMPLE, headers=ours | bearer("token-of-a-writer"))
        assert submitted.status == 202
        for answer in (refused, submitted):
            assert answer.headers["Access-Control-Allow-Origin"] == DASHBOARD
            exposed = answer.headers["Access-Control-Expose-Headers"].split(", ")
            assert set(exposed) == {"Link", "Location", "Preference-Applied", "Retry-After", "Idempotency-Replayed"}
            assert "Access-Control-Allow-Credentials" not in answer.headers

    @pytest.mark.parametrize("origin", FOREIGN)
    def test_any_other_page_may_neither_read_nor_change(self, endpoint: Start, store: Redis, origin: str) -> None:
        host = {"Host": f"jobs.{DOMAIN}" if "jobs." not in origin else f"cancel-job.{DOMAIN}", "Origin": origin}
        answers = [endpoint("jobs").request("OPTIONS", "/jobs", headers=host)]
        for site in ({}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}):
            answers.append(endpoint("jobs").request("POST", "/jobs", body=EXAMPLE, headers=host | site))
            assert "another site" in problem(answers[-1], 403)
        answers.append(endpoint("incomplete_jobs").request("GET", headers=host))
        assert not [answer for answer in answers if "Access-Control-Allow-Origin" in answer.headers]
        assert store.client.dbsize() == 0

    def test_no_page_of_the_web_submits_to_this_machine(self, endpoint: Start, store: Redis) -> None:
        host = {"Host": "localhost:5000", "Content-Type": "text/plain"}
        for origin, site in (
            ("https://evil.example", "cross-site"),
            ("https://evil.example", ""),
            ("http://dashboard.evil.example", "cross-site"),
            ("http://localhost:3000", "same-site"),
        ):
            headers = host | {"Origin": origin} | ({"Sec-Fetch-Site": site} if site else {})
            problem(endpoint("jobs").request("POST", "/jobs", body=EXAMPLE, headers=headers), 403)
        assert store.client.dbsize() == 0

    @pytest.mark.parametrize("site", ["same-origin", ""])
    def test_the_page_of_one_machine_may_submit(self, endpoint: Start, store: Redis, site: str) -> None:
        headers = {"Host": "localhost:5000", "Origin": "http://localhost:5000"}
        headers |= {"Sec-Fetch-Site": site} if site else {}
        assert endpoint("jobs").request("POST", "/jobs", body=EXAMPLE, headers=headers).status == 202


class TestFiles:
    def test_the_page_is_at_its_path_and_at_the_root_of_its_host(self, endpoint: Start) -> None:
        texts = [endpoint("dashboard").request("GET", path).data for path in ("/", "/dashboard", "/dashboard/")]
        assert texts == [(FOLDER / "page.html").read_bytes()] * 3
        assert endpoint("openapi").request("GET", "/docs").data == (FOLDER / "docs.html").read_bytes()

    @pytest.mark.parametrize("target", ["dashboard", "openapi"])
    def test_a_page_may_load_its_own_files_alone_and_no_script_may_be_in_it(self, endpoint: Start, target: str) -> None:
        for path in pages.DASHBOARD if target == "dashboard" else pages.DESCRIPTION:
            for host, others in (("localhost:5000", ""), (f"{target}.{DOMAIN}", f" *.{DOMAIN}")):
                answer = endpoint(target).request("GET", path, headers={"Host": host})
                styles = "'self' 'unsafe-inline'" if path == "/docs" else "'self'"
                assert answer.headers["Content-Security-Policy"] == (
                    f"default-src 'none'; script-src 'self'; style-src {styles}; img-src 'self' data:; "
                    f"connect-src 'self'{others}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
                )
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                assert answer.headers["Referrer-Policy"] == "same-origin"

    @pytest.mark.parametrize("target", ["dashboard", "openapi"])
    def test_they_need_no_token_and_what_has_data_does(self, start: Start, target: str) -> None:
        function = start(target, API_TOKENS=TOKENS).ready()
        files = pages.DASHBOARD if target == "dashboard" else pages.DESCRIPTION
        assert {function.request("GET", path).status for path in [*files, f"{list(files)[1]}/"]} == {200}
        for path in ("/dashboard/jobs", "/dashboard/overview") if target == "dashboard" else ("/openapi.json", "/"):
            problem(function.request("GET", path), 401)
            assert function.request("GET", path, headers=bearer(READER)).status == 200

    def test_a_browser_that_has_a_file_is_told_so(self, endpoint: Start) -> None:
        first = endpoint("dashboard").request("GET", "/dashboard/page.js")
        assert first.headers["Content-Type"] == "text/javascript; charset=utf-8"
        assert first.headers["Cache-Control"] == "no-cache"
        again = endpoint("dashboard").request(
            "GET", "/dashboard/page.js", headers={"If-None-Match": first.headers["ETag"]}
        )
        assert (again.status, again.data) == (304, b"")

    @pytest.mark.parametrize(
        "host", ["localhost:5000", "127.0.0.1:5000", "x", "a; script-src *.b.c", 'a".b', ".b.c", ""]
    )
    def test_no_other_host_gets_into_the_policy(self, host: str) -> None:
        assert cors.domain(host) == ""

    @pytest.mark.parametrize("file", sorted(FOLDER.iterdir()), ids=lambda file: file.name)
    def test_a_file_needs_nothing_from_elsewhere_and_makes_no_html_of_data(self, file: Path) -> None:
        text = file.read_text()
        files = pages.DASHBOARD | pages.DESCRIPTION
        assert ("knative_jobs.web", f"page/{file.name}") in files.values()
        for path, module in re.findall(r"""(?:src|href)="(/[^"]*)|from '\./([\w.]+)'""", text):
            assert (path or f"/dashboard/{module}") in files
        without_comments = re.sub(r"^\s*(//|/\*\*).*$", "", text, flags=re.MULTILINE)
        assert set(re.findall(r"https?://[\w.]+", without_comments)) <= {"http://www.w3.org"}
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|<style| on\w+=\"", text)


class TestNewest:
    @pytest.fixture
    def dashboard(self, endpoint: Start, store: Redis) -> Function:
        return endpoint("dashboard")

    def submit(self, endpoint: Start, count: int) -> list[str]:
        batch = json.dumps([json.loads(EXAMPLE)] * count)
        return [job["id"] for job in endpoint("jobs").request("POST", "/jobs", body=batch).json()]

    def test_jobs_of_every_status_are_listed_newest_first(self, endpoint: Start, dashboard: Function) -> None:
        assert dashboard.request("GET", "/dashboard/jobs").json() == []
        ids = self.submit(endpoint, 2)
        endpoint("worker").deliver(ids[0])  # which goes on with the other
        ids += self.submit(endpoint, 3)
        endpoint("cancel_job").request("POST", f"/cancel_job?job_id={ids[3]}")
        listed = dashboard.request("GET", "/dashboard/jobs").json()
        assert [job["id"] for job in listed] == ids[::-1]
        assert [job["status"] for job in listed] == ["submitted", "cancelled", "submitted", "complete", "complete"]
        record = endpoint("jobs_status").request("GET", f"/?job_id={ids[3]}").json()
        assert dashboard.request("GET", "/dashboard/jobs?status=cancelled").json() == [record]
        waiting = dashboard.request("GET", "/dashboard/jobs?status=submitted").json()
        assert [job["id"] for job in waiting] == [ids[4], ids[2]]
        assert dashboard.request("GET", f"/dashboard/jobs?status={quote('in progress')}").json() == []

    @pytest.mark.parametrize("status", ["", "submitted"])
    def test_pages_follow_their_links(self, endpoint: Start, dashboard: Function, status: str) -> None:
        ids = self.submit(endpoint, 25)
        path, seen, pages_read = f"/dashboard/jobs?status={status}&limit=10&cursor=", [], 0
        while path:
            answer = dashboard.request("GET", path)
            seen += [job["id"] for job in answer.json()]
            pages_read += 1
            link = re.fullmatch(r'<(\S+)>; rel="next"', answer.headers.get("Link", ""))
            path = link[1] if link else ""
        assert (seen, pages_read) == (ids[::-1], 3)

    def test_a_page_reads_no_more_records_than_it_has(self, endpoint: Start, dashboard: Function, store: Redis) -> None:
        for _ in range(3):
            self.submit(endpoint, 1000)
        dashboard.request("GET", "/dashboard/jobs?limit=20")
        store.client.config_resetstat()
        for path in ("/dashboard/jobs?limit=20", "/dashboard/jobs?limit=20&status=submitted"):
            assert len(dashboard.request("GET", path).json()) == 20
        calls = {name: stats["calls"] for name, stats in store.client.info("commandstats").items()}
        assert calls["cmdstat_hgetall"] == 40
        assert calls["cmdstat_zrange"] == 3

    @pytest.mark.parametrize(
        ("query", "says"),
        [
            ("status=done", "in progress"),
            (f"status={UNKNOWN_ID}", "in progress"),
            ("limit=0", "1 to 1000"),
            ("limit=1001", "1 to 1000"),
            ("cursor=x", "Link"),
        ],
    )
    def test_what_cannot_be_asked_for_is_told_so(self, dashboard: Function, query: str, says: str) -> None:
        assert says in problem(dashboard.request("GET", f"/dashboard/jobs?{query}"), 400)

    def test_the_overview_counts_what_is_listed(self, endpoint: Start, dashboard: Function) -> None:
        self.submit(endpoint, 3)
        overview = dashboard.request("GET", "/dashboard/overview").json()
        assert overview["counts"] == {"submitted": 3, "in progress": 0, "complete": 0, "failed": 0, "cancelled": 0}
        assert len(overview["minutes"]) == 60
        assert sum(minute["submitted"] for minute in overview["minutes"]) == 3
