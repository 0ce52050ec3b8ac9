"""What the documents say is so."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROOF = re.compile(r"`((?:acceptance|browser|contract|integration|sim|unit)/[\w/]+\.py)(?:::(\w+))?`")


def test_every_proof_of_a_guarantee_exists() -> None:
    named = set(PROOF.findall((ROOT / "docs" / "guarantees.md").read_text()))
    assert len(named) > 40
    missing = [f"{path}::{test}" for path, test in sorted(named) if not _has(ROOT / "tests" / path, test)]
    assert missing == []


@pytest.mark.parametrize(
    "document", sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("docs/**/*.md")), ids=lambda p: p.name
)
def test_every_link_of_a_document_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", document.read_text())
    assert [link for link in links if "://" not in link and not (document.parent / link).exists()] == []


def _has(path: Path, test: str) -> bool:
    if not path.exists():
        return False
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return not test or any(
        isinstance(node, functions) and node.name == test for node in ast.walk(ast.parse(path.read_text()))
    )
