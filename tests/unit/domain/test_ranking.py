"""The nearest come first, each once, and everybody who ranks agrees."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from haulcast.domain.ids import TransporterId
from haulcast.domain.ranking import Candidate, rank

from .strategies import T1, T2, T3, T4, candidate, candidates, transporters


def test_the_nearest_come_first() -> None:
    near, middle, far = candidate(T3, "van", 10), candidate(T1, "van", 20), candidate(T2, "van", 30)
    assert rank([far, near, middle], (), 10) == (near, middle, far)


def test_of_equal_distances_the_smaller_id_comes_first() -> None:
    assert rank([candidate(T2), candidate(T3), candidate(T1)], (), 2) == (candidate(T1), candidate(T2))


def test_a_transporter_comes_once_with_its_nearest_vehicle() -> None:
    near, far = candidate(T1, "truck", 10), candidate(T1, "van", 20)
    assert rank([far, near, candidate(T2, "van", 15)], (), 10) == (near, candidate(T2, "van", 15))


def test_a_second_vehicle_takes_nobodys_place() -> None:
    found = [candidate(T1, "van", 10), candidate(T1, "truck", 11), candidate(T2, "van", 12), candidate(T3, "van", 13)]
    assert rank(found, (), 2) == (found[0], found[2])


def test_who_is_excluded_leaves_the_place_to_the_next() -> None:
    found = [candidate(transporter) for transporter in (T1, T2, T3, T4)]
    assert rank(found, {T1, T3}, 2) == (found[1], found[3])


def test_nobody_gives_nobody() -> None:
    assert rank([], (), 5) == ()
    assert rank([candidate(T1)], {T1}, 5) == ()


def brute_force(found: list[Candidate], exclude: set[TransporterId], limit: int) -> list[Candidate]:
    mine = {each.transporter_id for each in found} - exclude
    nearest = [min(each for each in found if each.transporter_id == transporter) for transporter in mine]
    return sorted(nearest, key=lambda each: (each.distance_m, each.transporter_id))[:limit]


@given(st.lists(candidates, max_size=20), st.sets(transporters), st.integers(1, 8), st.randoms())
def test_the_rank_is_that_of_brute_force_in_whatever_order_they_come(
    found: list[Candidate], exclude: set[TransporterId], limit: int, random: Random
) -> None:
    expected = brute_force(found, exclude, limit)
    random.shuffle(found)
    assert [*rank(found, exclude, limit)] == expected
