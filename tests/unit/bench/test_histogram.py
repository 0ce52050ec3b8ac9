import pickle

import pytest

from bench.kit.histogram import Histogram


def test_percentiles_are_milliseconds_to_three_digits() -> None:
    histogram = Histogram(number / 1000 for number in range(1, 1001))
    assert len(histogram) == 1000
    assert histogram.ms(50) == pytest.approx(500, rel=0.002)
    assert histogram.ms(99) == pytest.approx(990, rel=0.002)
    assert histogram.ms(100) == pytest.approx(1000, rel=0.002)


def test_counts_of_several_processes_become_one() -> None:
    parts = [Histogram([0.001] * 90), Histogram([0.1] * 10)]
    whole = Histogram().merge(*pickle.loads(pickle.dumps(parts)))
    assert len(whole) == 100
    assert whole.ms(90) == pytest.approx(1, rel=0.002)
    assert whole.ms(91) == pytest.approx(100, rel=0.002)


def test_what_was_pickled_goes_on_counting() -> None:
    copy: Histogram = pickle.loads(pickle.dumps(Histogram([0.001])))
    copy.add(0.002)
    assert len(copy) == 2


def test_what_is_out_of_bounds_counts_at_the_bound() -> None:
    histogram = Histogram([-1.0, 0.0, 3600.0])
    assert histogram.ms(0) == 0.001
    assert histogram.ms(100) == pytest.approx(60_000, rel=0.002)
    assert len(histogram) == 3


def test_an_empty_one_tells_zero() -> None:
    assert Histogram().ms(99) == 0
    assert {ms for _, ms in Histogram().curve} == {0}


def test_the_curve_rises_from_the_lowest_to_the_highest() -> None:
    curve = Histogram(number / 1000 for number in range(1, 101)).curve
    percentiles, values = zip(*curve, strict=True)
    assert (percentiles[0], percentiles[-1]) == (0, 100)
    assert list(values) == sorted(values)
    assert values[-1] == pytest.approx(100, rel=0.002)
