"""The component `monitoring`, on top of each overlay: what Prometheus and Grafana of a cluster find."""

import json
import os
import re
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from tests.conftest import ROOT, Redis, Start
from tests.manifests.rendered import KNATIVE, OVERLAYS, Manifest, build
from tests.test_metrics import read

COMPONENT = KNATIVE / "components" / "monitoring"
TOKEN = """
patches:
  - target: {kind: ServiceMonitor, name: metrics}
    patch: |
      - {op: add, path: /spec/endpoints/0/authorization, value: {credentials: {name: metrics-token, key: token}}}
"""


@pytest.fixture(params=OVERLAYS)
def manifests(request: pytest.FixtureRequest, tmp_path: Path) -> list[Manifest]:
    """An overlay of one's own, with the component and with the patch that its first lines give."""
    below, component = (os.path.relpath(path, tmp_path) for path in (KNATIVE / "overlays" / request.param, COMPONENT))
    text = f"namespace: knative-jobs\nresources: [{below}]\ncomponents: [{component}]\n{TOKEN}"
    (tmp_path / "kustomization.yaml").write_text(text)
    return build(tmp_path)


def one(manifests: list[Manifest], kind: str, name: str, group: str = "") -> Manifest:
    [found] = [
        m for m in manifests if (m["kind"], m["metadata"]["name"]) == (kind, name) and m["apiVersion"].startswith(group)
    ]
    assert found["metadata"]["namespace"] == "knative-jobs"
    return found


def test_prometheus_finds_the_pods_of_the_metrics_and_may_reach_them(manifests: list[Manifest]) -> None:
    monitor = one(manifests, "ServiceMonitor", "metrics")["spec"]
    assert monitor["selector"]["matchLabels"]["serving.knative.dev/service"] == "metrics"
    [endpoint] = monitor["endpoints"]
    assert (endpoint["port"], endpoint["path"]) == ("http", "/metrics")
    assert endpoint["authorization"] == {"credentials": {"name": "metrics-token", "key": "token"}}
    policy = one(manifests, "NetworkPolicy", "monitoring")["spec"]
    assert policy["podSelector"] == {"matchLabels": {"serving.knative.dev/service": "metrics"}}
    assert [rule["ports"] for rule in policy["ingress"]] == [[{"port": 8012}]]


def test_one_pod_of_the_metrics_is_always_there(manifests: list[Manifest]) -> None:
    template = one(manifests, "Service", "metrics", "serving.knative.dev")["spec"]["template"]
    scale = {key.partition("/")[2]: value for key, value in template["metadata"]["annotations"].items()}
    assert (scale["min-scale"], scale["max-scale"]) == ("1", "1")


def test_grafana_finds_the_dashboard(manifests: list[Manifest]) -> None:
    config = one(manifests, "ConfigMap", "grafana-dashboard")
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(config["data"]["grafana.json"]) == DASHBOARD


DASHBOARD: dict[str, Any] = json.loads((COMPONENT / "grafana.json").read_text())
RULES: list[dict[str, Any]] = yaml.safe_load((COMPONENT / "rules.yaml").read_text())["spec"]["groups"][0]["rules"]
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]


def test_the_component_tells_of_the_patch_for_a_token() -> None:
    told = re.sub(r"^# ?", "", (COMPONENT / "kustomization.yaml").read_text(), flags=re.MULTILINE)
    assert all(line in told for line in TOKEN.strip().splitlines()[1:])


def test_the_dashboard_shows_what_metrics_tells_and_all_of_it(endpoint: Start, store: Redis) -> None:
    told = {sample.split()[0] for sample in read(endpoint("metrics"))}
    shown = {name for query in QUERIES for name in re.findall(r"\bknative_jobs\w*", query)}
    assert shown == told


def rules(manifests: list[Manifest]) -> dict[str, Any]:
    [group] = one(manifests, "PrometheusRule", "knative-jobs")["spec"]["groups"]
    found = {rule["alert"]: rule for rule in group["rules"]}
    assert len(found) == len(group["rules"])
    return found


@pytest.mark.parametrize("expression", [*QUERIES, *(rule["expr"] for rule in RULES)])
def test_every_expression_is_promql(expression: str) -> None:
    promql_parser.parse(expression.replace("$__rate_interval", "1m"))


def test_what_is_no_promql_is_noticed() -> None:
    with pytest.raises(ValueError, match="parenthesis"):
        promql_parser.parse("max(knative_jobs")


def test_every_alert_says_what_is_wrong_and_has_its_place_in_the_documents(manifests: list[Manifest]) -> None:
    text = (ROOT / "docs" / "operate.md").read_text()
    assert list(rules(manifests).values()) == RULES
    for rule in RULES:
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"].keys() == {"summary", "description"}
        assert f"| `{rule['alert']}` |" in text


def test_alerts_ask_for_metrics_that_there_are(endpoint: Start, store: Redis) -> None:
    told = {sample.split()[0] for sample in read(endpoint("metrics"))}
    asked = {name for rule in RULES for name in re.findall(r"\bknative_jobs\w*", rule["expr"])}
    assert asked
    assert asked <= told


def test_two_instances_do_not_double_what_the_dashboard_shows() -> None:
    """Each metric is the greatest of several instances first; only then is there a sum, over kinds."""
    for query in QUERIES:
        series = r"(rate\()?(time\(\) - )?\bknative_jobs\w*"
        assert len(re.findall(rf"max( by \([\w, ]+\) )?\({series}", query)) == len(
            re.findall(r"knative_jobs\w*", query)
        )
        assert len(re.findall(r"\bsum\b", query)) == query.count("sum(max by (kind)") + len(
            re.findall(r"sum by \((\w+)\) \(max by \(\1, kind\)", query)
        )


def test_the_dashboard_shows_the_kinds_that_are_chosen_there() -> None:
    [choice] = [variable for variable in DASHBOARD["templating"]["list"] if variable["name"] == "kind"]
    assert choice["query"] == "label_values(knative_jobs, kind)"
    for query in QUERIES:
        of_one_kind = re.findall(r"knative_jobs(?!_redis|_last_sweep)\w*", query)
        assert query.count('kind=~"$kind"') == len(of_one_kind)


def test_an_alert_about_jobs_names_their_kind() -> None:
    about_jobs = [rule for rule in RULES if "by (kind)" in rule["expr"]]
    assert len(about_jobs) == 3
    assert all("{{ $labels.kind }}" in rule["annotations"]["summary"] for rule in about_jobs)


def test_no_two_panels_have_one_place() -> None:
    places = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(places) == len(set(places))
    assert max(x for x, _ in places) < 24
