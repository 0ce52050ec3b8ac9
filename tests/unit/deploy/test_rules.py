"""The rules of Prometheus name what the server exports, fire when they should, and each alert is explained."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from .promql import DEPLOY, Rule, alerts, asked, exported, rules, wrong_in
from .promtool import needs_promtool, promtool

OPERATIONS = DEPLOY.parent / "docs" / "operations.md"
PROMETHEUS = DEPLOY / "prometheus"
TESTS = sorted((PROMETHEUS / "tests").glob("*.yml"))


def test_asked_reads_series_labels_and_groups() -> None:
    found = asked('sum by (le, code) (rate(a_total{code!="x", type=~"b|c"}[5m])) / on (code) group_left () b:c > 0.5')
    assert found.series == (("a_total", {"code": "x", "type": "b|c"}), ("b:c", {}))
    assert found.grouped_by == {"le", "code"}


def test_exported_has_each_kind_of_metric() -> None:
    names = exported()
    assert names["haulcast_requests_total"] == {"type", "outcome", "job", "instance"}
    assert "le" in names["haulcast_loop_lag_seconds_bucket"]
    assert "haulcast_lease_left_seconds" in names


def test_what_does_not_exist_is_found() -> None:
    assert wrong_in('rate(haulcast_request_total{kind="x"}[5m])') != []
    assert wrong_in('haulcast_topics{code="1"}') == ["label code of haulcast_topics"]
    assert wrong_in('haulcast_requests_total{outcome="WRONG"}') == ["outcome WRONG"]
    assert wrong_in("sum by (type) (haulcast_topics)") == ["label type"]


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: str(rule.content.get("alert") or rule.content["record"]))
def test_every_rule_names_what_is_exported(rule: Rule) -> None:
    assert wrong_in(rule.expr) == []


@pytest.mark.parametrize("rule", list(alerts().values()), ids=list(alerts()))
def test_every_alert_says_what_to_do(rule: Rule) -> None:
    name = rule.content["alert"]
    assert rule.content["labels"] in ({"severity": "page"}, {"severity": "ticket"})
    assert set(rule.content["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule.content["annotations"]["runbook_url"] == f"docs/operations.md#{name.lower()}"


def test_the_operators_entries_are_those_of_the_alerts_with_their_severity() -> None:
    entries = re.findall(r"^### (Haulcast\w+)\n\n\*(Page|Ticket)\.\*", OPERATIONS.read_text(), re.MULTILINE)
    assert sorted(entries) == sorted(
        (name, str(rule.content["labels"]["severity"]).capitalize()) for name, rule in alerts().items()
    )


@pytest.mark.parametrize("alert", list(alerts()))
def test_every_alert_has_a_test_that_fires_and_one_that_stays_quiet(alert: str) -> None:
    tests = [test for test in _tests() if test["name"].startswith(f"{alert} ")]
    fires = [test for test in tests if test["name"].startswith(f"{alert} fires ")]
    quiet = [test for test in tests if test["name"].startswith(f"{alert} stays quiet ")]
    assert [_firing(test) for test in fires] == [{alert}]
    assert len(quiet) == 1
    assert alert not in _firing(quiet[0])


def test_tests_of_rules_feed_what_is_exported() -> None:
    series = {series["series"] for test in _tests() for series in test["input_series"]}
    assert [found for expression in sorted(series) for found in wrong_in(expression)] == []


@needs_promtool
@pytest.mark.parametrize("file", TESTS, ids=lambda file: str(file.stem))
def test_alerts_fire_when_they_should(file: Path) -> None:
    promtool("test", "rules", file)


@needs_promtool
def test_prometheus_accepts_its_configuration() -> None:
    promtool("check", "config", PROMETHEUS / "prometheus.yml")


def _tests() -> Iterator[dict[str, Any]]:
    for file in TESTS:
        yield from yaml.safe_load(file.read_text())["tests"]


def _firing(test: dict[str, Any]) -> set[str]:
    """The alerts that fire at some time of the test."""
    labels = [sample["labels"] for moment in test["promql_expr_test"] for sample in moment["exp_samples"]]
    return {name for text in labels for name in re.findall(r'alertname="(\w+)"', text)}
