"""What the expressions of rules and dashboards name, and what there is to be named.

`selectors` reads just enough of PromQL: which series an expression asks for, by which labels. Whether it is well formed
is promtool's to say.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args

import yaml

from haulcast.domain.commands import Command
from haulcast.domain.replies import Refusal
from haulcast.domain.states import EndReason
from haulcast.errors import ErrorCode
from haulcast.metrics import Metrics
from haulcast.transport import wire

DEPLOY = Path(__file__).parents[3] / "deploy"
TARGET_LABELS = frozenset({"job", "instance"})
"""What Prometheus adds to every series that it scrapes."""
OF_PROMETHEUS: Mapping[str, frozenset[str]] = {
    "up": TARGET_LABELS,
    "ALERTS": TARGET_LABELS | {"alertname", "alertstate", "severity", "type", "outcome"},
}

VALUES: Mapping[str, frozenset[str]] = {
    "type": frozenset(wire.TYPE_OF.values()) | {"http"},
    "outcome": frozenset({"ok", *ErrorCode, *Refusal}),
    "command": frozenset(command.__name__ for command in get_args(Command)),
    "kind": frozenset({"offer", "bad_news"}),
    "reason": frozenset(EndReason),
}
"""What the labels that are matched with fixed values can be."""

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|\[[^\]]*\]|[a-zA-Z_:][\w:]*|[0-9.]+[a-z]*|[=!<>]=|=~|!~|[^\s\w]')
_NAME = re.compile(r"[a-zA-Z_:][\w:]*")
_GROUPING = frozenset({"by", "without", "on", "ignoring", "group_left", "group_right"})
_OPERATORS = frozenset({"and", "or", "unless", "bool"})


@dataclass(frozen=True, slots=True)
class Asked:
    """What an expression asks for."""

    series: tuple[tuple[str, Mapping[str, str]], ...]
    """Each metric, with the values that its labels are matched with."""
    grouped_by: frozenset[str]


@dataclass(frozen=True, slots=True)
class Rule:
    """One recording or alert rule, as it stands in its file."""

    content: Mapping[str, Any]

    @property
    def expr(self) -> str:
        """Its expression."""
        return str(self.content["expr"])


def asked(expression: str) -> Asked:
    """What `expression` asks for."""
    tokens = _TOKEN.findall(expression)
    series: list[tuple[str, Mapping[str, str]]] = []
    grouped_by: set[str] = set()
    at = 0
    while at < len(tokens):
        token, after = tokens[at], tokens[at + 1] if at + 1 < len(tokens) else ""
        at += 1
        if token in _GROUPING and after == "(":
            end = tokens.index(")", at)
            grouped_by.update(filter(_NAME.fullmatch, tokens[at:end]))
            at = end + 1
        elif _NAME.fullmatch(token) and token not in _OPERATORS and after != "(" and after not in _GROUPING:
            matched: dict[str, str] = {}
            if after == "{":
                end = tokens.index("}", at)
                inside = tokens[at + 1 : end]
                matched = {name: inside[i + 2].strip('"') for i, name in enumerate(inside) if _NAME.fullmatch(name)}
                at = end + 1
            series.append((token, matched))
    return Asked(tuple(series), frozenset(grouped_by))


def exported() -> dict[str, frozenset[str]]:
    """Every series that a node exports, with its labels: of the server's own registry."""
    found: dict[str, frozenset[str]] = {}
    for collector in Metrics().registry._collector_to_names:
        for family in collector.collect():
            # Metrics of prometheus_client know their labels, and so do families that a collector makes by itself.
            labels = TARGET_LABELS.union(*(getattr(knows, "_labelnames", ()) for knows in (collector, family)))
            if family.type == "histogram":
                found |= {f"{family.name}_sum": labels, f"{family.name}_count": labels}
                found[f"{family.name}_bucket"] = labels | {"le"}
            else:
                found[f"{family.name}_total" if family.type == "counter" else family.name] = labels
    return found


@cache
def known() -> dict[str, frozenset[str]]:
    """Every series that an expression may name: exported, recorded, or Prometheus' own."""
    recorded = {
        rule.content["record"]: asked(rule.expr).grouped_by - {"le"} for rule in rules() if "record" in rule.content
    }
    return exported() | recorded | dict(OF_PROMETHEUS)


@cache
def rules() -> tuple[Rule, ...]:
    """All rules of all files."""
    files = sorted((DEPLOY / "prometheus" / "rules").glob("*.yml"))
    groups = [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
    return tuple(Rule(content) for group in groups for content in group["rules"])


def alerts() -> dict[str, Rule]:
    """All alerts by name."""
    return {rule.content["alert"]: rule for rule in rules() if "alert" in rule.content}


def wrong_in(expression: str) -> list[str]:
    """What `expression` names that does not exist."""
    names, found = known(), asked(expression)
    wrong = [f"metric {metric}" for metric, _ in found.series if metric not in names]
    for metric, matched in found.series:
        wrong += [f"label {label} of {metric}" for label in matched if label not in names.get(metric, ())]
        for label in matched.keys() & VALUES.keys():
            wrong += [f"{label} {value}" for value in matched[label].split("|") if value not in VALUES[label]]
    all_labels = frozenset[str]().union(*(names.get(metric, frozenset()) for metric, _ in found.series))
    return wrong + [f"label {label}" for label in sorted(found.grouped_by - all_labels)]
