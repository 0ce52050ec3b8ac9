"""Ids never need escaping, and a trip's id leads to its broadcast."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haulcast.domain.ids import BroadcastId, assignment_id, broadcast_of, is_id, request_id, trip_id

broadcast_ids = st.from_regex(r"[0-9a-z]{26}", fullmatch=True).map(BroadcastId)


@pytest.mark.parametrize("text", ["a", "7", "t7", "MH-04.AB:1234_x", "A" * 64, "0-"])
def test_what_may_be_an_id(text: str) -> None:
    assert is_id(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "A" * 65,
        "-a",
        ".a",
        "_a",
        ":a",
        "a b",
        " a",
        "a\n",
        "a\nb",
        "a/b",
        "a~b",
        "a*",
        "a\x00",
        'a"',
        "é",
        "a\u0663",  # a digit, but not an ASCII one
        "\U0001f69a",
    ],
)
def test_what_may_not(text: str) -> None:
    assert not is_id(text)


@given(st.text(max_size=70))
def test_an_id_consists_of_characters_that_mean_nothing_anywhere(text: str) -> None:
    expected = 1 <= len(text) <= 64 and text[0] not in "_.:-" and not re.search("[^A-Za-z0-9_.:-]", text)
    assert is_id(text) == expected


def test_the_parts_of_a_broadcast_are_named_after_it() -> None:
    request = request_id(BroadcastId("01k9"), 2)
    assert (request, trip_id(request), assignment_id(request)) == ("01k9-2", "01k9-2-t", "01k9-2-a")


@given(broadcast_ids, st.integers(1, 500))
def test_a_trip_leads_to_its_broadcast(broadcast: BroadcastId, number: int) -> None:
    assert broadcast_of(trip_id(request_id(broadcast, number))) == broadcast


@given(broadcast_ids)
def test_all_parts_have_ids_of_their_own(broadcast: BroadcastId) -> None:
    requests = [request_id(broadcast, number) for number in range(1, 30)]
    parts = [broadcast, *requests, *map(trip_id, requests), *map(assignment_id, requests)]
    assert len(set(parts)) == len(parts)
    assert all(map(is_id, parts))
