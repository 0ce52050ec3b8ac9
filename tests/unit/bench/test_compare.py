from rich.console import Console

from bench.kit.compare import NOISE, differences, pairs, show

from .results import result_of


def verdict(before: list[float], after: list[float]) -> str:
    """Of the one figure."""
    (pair,) = pairs(result_of(before), result_of(after))
    return pair.verdict


def test_ranges_that_overlap_are_noise() -> None:
    assert verdict([1.0, 3.0], [3.0, 9.0]) == NOISE
    assert verdict([1.0, 9.0], [2.0, 3.0]) == NOISE


def test_ranges_apart_are_a_difference() -> None:
    assert verdict([1.0, 3.0], [3.1, 9.0]) == "higher"
    assert verdict([3.1, 9.0], [1.0, 3.0]) == "lower"


def test_one_repetition_has_no_range() -> None:
    assert verdict([1.0], [9.0, 10.0]) == "no range"


def test_a_ratio_is_that_of_the_medians_the_second_by_the_first() -> None:
    (pair,) = pairs(result_of([1.0, 2.0, 90.0]), result_of([3.0, 4.0, 5.0]))
    assert pair.ratio == 2.0
    (pair,) = pairs(result_of([0.0]), result_of([1.0]))
    assert pair.ratio is None


def test_only_what_both_have_in_the_same_unit_is_compared() -> None:
    before, after = result_of([1.0]), result_of([1.0])
    after.scenarios["request"].variants["haulcast"].figures["cpu"].unit = "ms"
    assert not list(pairs(before, after))
    after = result_of([1.0])
    del after.scenarios["request"].variants["haulcast"]
    assert not list(pairs(before, after))
    after.scenarios.clear()
    assert not list(pairs(before, after))


def test_what_differs_besides_is_named() -> None:
    before, after = result_of([1.0]), result_of([1.0], node="22")
    assert not differences(before, before)
    after.profile = "full"
    after.machine.update(cores=4, load_before=1.5)
    after.scenarios["request"].options["sockets"] = 200
    assert differences(before, after) == [
        "profile: short and full",
        "load before: 0.1 and 1.5",
        "cores: 2 and 4",
        "node: unknown and 22",
        "request: sockets: 20 and 200",
    ]


def test_differences_are_told_before_the_table() -> None:
    console = Console(record=True, width=200)
    show(result_of([1.0, 2.0]), result_of([5.0, 6.0], node="22"), console)
    text = console.export_text()
    assert text.index("differs: node: unknown and 22") < text.index("B / A")
    row = next(line for line in text.splitlines() if "cpu" in line)
    assert all(part in row for part in ("request", "haulcast", "us", "1.5", "5.5", "3.667", "higher"))
