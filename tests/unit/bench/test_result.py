import json
from pathlib import Path

import pytest

from bench.kit.result import FORMAT, Figure, Result, machine, versions

from .results import result_of


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    result = result_of([1.0, 2.0])
    path = tmp_path / "made" / "result.json"
    result.write(path)
    assert Result.read(path) == result


def test_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    result = result_of([1.0])
    result.format = FORMAT + 1
    result.write(path)
    with pytest.raises(ValueError, match=f"result.json: is of format {FORMAT + 1}, this reads {FORMAT}"):
        Result.read(path)


@pytest.mark.parametrize("content", ["", "no JSON", "[]", json.dumps({"command": "python"})])
def test_what_is_no_result_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"other.json is not a result of the bench: "):
        Result.read(path)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere.json: .*No such file"):
        Result.read(tmp_path / "nowhere.json")


def test_what_counts_of_a_figure_is_the_median() -> None:
    assert Figure("us", [9.0, 1.0, 2.0]).median == 2.0


def test_machine_and_versions_are_known() -> None:
    assert machine()["cores"] >= 1
    assert machine()["cpu"]
    assert versions()["python"].startswith("3.")
    assert versions()["commit"]
