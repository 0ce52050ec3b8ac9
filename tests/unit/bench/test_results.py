"""The committed results, and what README says of them."""

import re
from pathlib import Path

import pytest

from bench.kit.result import Result

ROOT = Path(__file__).parents[3]
RESULTS = sorted((ROOT / "bench" / "results").glob("*.json"))
_ROW = re.compile(
    r"^\| `(?P<name>[a-z_0-9.]+)` \| (?P<value>[\d.e+-]+) \| (?P<bound>[^|]+) \| (?P<met>yes|no) \|", re.M
)


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_committed_result_can_be_read_and_nothing_in_it_failed(path: Path) -> None:
    result = Result.read(path)
    assert result.targets
    assert not [scenario.failed for scenario in result.scenarios.values() if scenario.failed]


def test_readme_says_what_the_result_says() -> None:
    readme = (ROOT / "README.md").read_text()
    linked = re.search(r"\(bench/results/([\w.-]+\.json)\)", readme)
    assert linked is not None
    targets = Result.read(ROOT / "bench" / "results" / linked[1]).targets
    rows = list(_ROW.finditer(readme))
    assert len(rows) >= 15
    for row in rows:
        target = targets[row["name"]]
        assert target.value is not None
        assert row["value"] == f"{target.value:.3g}"
        assert row["bound"] == f"{target.kind} {target.bound:g}"
        assert row["met"] == ("yes" if target.met else "no")
