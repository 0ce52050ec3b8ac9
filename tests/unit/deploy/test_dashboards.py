"""The dashboards ask for what the server exports, and explain what they show."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from .promql import DEPLOY, wrong_in
from .promtool import needs_promtool, promtool

GRAFANA = DEPLOY / "grafana"
DASHBOARDS = {file.stem: json.loads(file.read_text()) for file in sorted((GRAFANA / "dashboards").glob("*.json"))}
PANELS = [(name, panel) for name, dashboard in DASHBOARDS.items() for panel in dashboard["panels"]]
EVERY_PANEL = pytest.mark.parametrize(
    "panel", [panel for _, panel in PANELS], ids=[f"{n}-{p['title']}" for n, p in PANELS]
)


def test_there_is_one_dashboard_for_the_business_and_one_for_the_operator() -> None:
    assert sorted(DASHBOARDS) == ["dispatch", "nodes"]
    assert len({dashboard["uid"] for dashboard in DASHBOARDS.values()}) == len(DASHBOARDS)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_are_distinct_and_do_not_overlap(name: str) -> None:
    panels = DASHBOARDS[name]["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    cells = [cell for panel in panels for cell in _cells(**panel["gridPos"])]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


@EVERY_PANEL
def test_every_panel_asks_for_what_is_exported_and_explains_it(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["targets"]
    assert [wrong for target in panel["targets"] for wrong in wrong_in(target["expr"])] == []
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_every_variable_is_defined_and_asks_for_what_is_exported() -> None:
    for dashboard in DASHBOARDS.values():
        variables = dashboard.get("templating", {"list": []})["list"]
        queries = [variable["query"].removeprefix("label_values(").partition(", ")[0] for variable in variables]
        assert [wrong for query in queries for wrong in wrong_in(query)] == []
        used = set(re.findall(r"\$(\w+)", json.dumps(dashboard["panels"]))) - {"__rate_interval"}
        assert used == {variable["name"] for variable in variables}


@needs_promtool
def test_every_expression_is_well_formed(tmp_path: Path) -> None:
    expressions = [target["expr"] for _, panel in PANELS for target in panel["targets"]]
    as_rules = [
        {"record": f"r:{number}", "expr": expression.replace("$__rate_interval", "1m").replace("$instance", ".*")}
        for number, expression in enumerate(expressions)
    ]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": as_rules}]}))
    promtool("check", "rules", file)


def test_grafana_finds_its_dashboards_and_prometheus() -> None:
    (provider,) = _provisioned("dashboards")["providers"]
    (source,) = _provisioned("datasources")["datasources"]
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in compose["grafana"]["volumes"]
    assert source["isDefault"], "panels name no data source"
    assert source["url"].removeprefix("http://").partition(":")[0] in compose


def _provisioned(what: str) -> dict[str, Any]:
    (file,) = (GRAFANA / "provisioning" / what).glob("*.yml")
    content: dict[str, Any] = yaml.safe_load(file.read_text())
    return content


def _cells(x: int, y: int, w: int, h: int) -> list[tuple[int, int]]:
    return [(column, row) for column in range(x, x + w) for row in range(y, y + h)]
