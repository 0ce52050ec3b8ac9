import inspect
from pathlib import Path

import pytest

from bench.__main__ import PROFILES, about, found, main, options_of, overriding
from bench.kit.bench import Bench
from bench.kit.result import Result

from .results import result_of

SCENARIOS = found()


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_has_all_that_is_asked_of_it(name: str) -> None:
    """It says in one line what it measures, has the same numbers in every profile, and runs."""
    scenario = SCENARIOS[name]
    assert len(about(scenario)) > 20
    assert sorted(scenario.OPTIONS) == sorted(PROFILES)
    short, full = (scenario.OPTIONS[profile] for profile in PROFILES)
    assert {option: type(value) for option, value in short.items()} == {
        option: type(value) for option, value in full.items()
    }
    assert inspect.iscoroutinefunction(scenario.run)


def test_options_are_those_of_the_profile_and_what_was_set() -> None:
    day = SCENARIOS["day"]
    set_ = [overriding(text) for text in ("seconds=2", "nodes=3", "of_another_scenario=1")]
    for profile in PROFILES:
        assert options_of(day, profile, set_) == {**day.OPTIONS[profile], "seconds": 2.0, "nodes": 3}
    assert isinstance(options_of(day, "short", set_)["seconds"], float)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nothing"], "unknown scenario nothing; there are: "),
        (["run", "day", "--set", "seconds"], "--set seconds: give NAME=VALUE"),
        (["run", "day", "--set", "seconds=long"], "--set seconds=long: the value is not JSON"),
        (["run", "day", "--set", "nodes=1.5"], "--set nodes=1.5: it is of type int, like 0"),
        (["run", "day", "--set", "nodes=true"], "--set nodes=true: it is of type int, like 0"),
        (["run", "connect", "--set", "sockets=-5"], "--set sockets=-5: it is at least 1"),
        (["run", "day", "--set", "repetitions=0"], "--set repetitions=0: it is at least 1"),
        (["run", "day", "--set", "seed=-1"], "--set seed=-1: it is at least 0"),
        (["run", "day", "--url", "localhost"], "--url localhost: give it as http://HOST:PORT or https://HOST"),
        (["run", "day", "--url", "http://127.0.0.1:9"], "--url http://127.0.0.1:9: nothing answers there ("),
        (["run", "day", "--url", "http://127.0.0.1:x"], "--url http://127.0.0.1:x: nothing answers there ("),
        (["compare", "README.md", "README.md"], "README.md is not a result of the bench: "),
        (["run", "day", "--set", "wheels=4"], "--set wheels: day has no such option"),
        (["compare", "nowhere.json", "nowhere.json"], "nowhere.json: No such file or directory"),
        (["report", "nowhere.json"], "nowhere.json: "),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(arguments) == 2
    assert capsys.readouterr().out.startswith(f"bench: {message}")


def test_the_list_has_every_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    listed = capsys.readouterr().out
    assert all(f"\n{name} " in f"\n{listed}" for name in SCENARIOS)


def test_a_report_is_written_beside_the_result_or_where_it_is_told_to(tmp_path: Path) -> None:
    result_of([1.0]).write(tmp_path / "result.json")
    assert main(["report", str(tmp_path / "result.json")]) == 0
    assert main(["report", str(tmp_path / "result.json"), "--out", str(tmp_path / "other.html")]) == 0
    assert (tmp_path / "result.html").read_text() == (tmp_path / "other.html").read_text()


def test_results_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [tmp_path / "a.json", tmp_path / "b.json"]
    for path in paths:
        result_of([1.0, 2.0]).write(path)
    assert main(["compare", *map(str, paths)]) == 0
    assert "1.000" in capsys.readouterr().out


def test_a_scenario_that_fails_is_in_the_result_and_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def run(_bench: object) -> None:
        raise OSError("no server")

    monkeypatch.setattr(SCENARIOS["day"], "run", run)
    assert main(["run", "day", "--out", str(tmp_path / "result.json")]) == 1
    assert Result.read(tmp_path / "result.json").scenarios["day"].failed == "OSError: no server"
    assert "failed: OSError: no server" in capsys.readouterr().out


@pytest.mark.parametrize(("enough", "tried"), [(1, [1]), (2, [1, 2]), (5, [1, 2, 4, 6]), (100, [1, 2, 4, 6])])
def test_clients_that_were_the_bottleneck_are_doubled_up_to_one_for_each_core(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, enough: int, tried: list[int]
) -> None:
    asked: list[int] = []

    async def run(bench: Bench) -> None:
        asked.append(bench.options["clients"])
        bench.saturated = bench.options["clients"] < enough

    monkeypatch.setattr(SCENARIOS["day"], "run", run)
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    assert main(["run", "day", "--set", "clients=1", "--out", str(tmp_path / "result.json")]) == 0
    assert asked == tried
    assert Result.read(tmp_path / "result.json").scenarios["day"].options["clients"] == tried[-1]


def test_what_was_measured_before_the_end_is_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(bench: Bench) -> None:
        bench.record("one", "s", took=1.0)

    async def end(_bench: Bench) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(SCENARIOS["connect"], "run", run)
    monkeypatch.setattr(SCENARIOS["day"], "run", end)
    assert main(["run", "connect", "day", "--out", str(tmp_path / "result.json")]) == 130
    assert Result.read(tmp_path / "result.json").scenarios["connect"].variants["one"].figures["took"].values == [1.0]


@pytest.mark.parametrize("name", ["fanout", "race", "request"])
async def test_what_is_measured_on_this_machine_alone_is_left_out_at_an_address(
    name: str, bench: Bench, result: Result
) -> None:
    """And not measured at other servers than the one that was asked about."""
    bench.url = "http://127.0.0.1:9"
    await SCENARIOS[name].run(bench)
    (variant,) = result.scenarios[bench.name].variants.values()
    assert variant.figures == {}
    assert "run it without --url" in variant.skipped
