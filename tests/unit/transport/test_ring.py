"""The last steps of a topic: whoever lacks only some of them gets those, and nobody gets some with a gap between."""

from itertools import pairwise

from haulcast.transport.ring import MAX_STEPS, Ring, Step


def step(since: int, version: int) -> Step:
    return Step((1, since), (1, version), 5, (b'{"set":{', b"}}"), [(b"offer", b"{}")])


def ring_of(*versions: int) -> Ring:
    ring = Ring()
    for since, version in pairwise(versions):
        ring.add(step(since, version))
    return ring


def test_the_steps_from_a_version_on() -> None:
    ring = ring_of(1, 2, 3, 4)
    assert ring.between((1, 2), (1, 4)) == [step(2, 3), step(3, 4)]
    assert ring.between((1, 4), (1, 4)) == []
    assert Ring().between((1, 4), (1, 4)) == []


def test_a_version_that_no_step_starts_from_cannot_be_gone_on_from() -> None:
    ring = ring_of(1, 2, 3, 4)
    for held in ((1, 0), (1, 5), (2, 2), (0, 2)):
        assert ring.between(held, (1, 4)) is None
    assert Ring().between((1, 3), (1, 4)) is None


def test_where_the_topic_moved_on_without_a_step_those_before_are_of_no_use() -> None:
    ring = ring_of(1, 2, 3)
    assert ring.between((1, 2), (1, 9)) is None
    ring.add(step(9, 10))
    assert len(ring) == 1
    assert ring.between((1, 2), (1, 10)) is None
    assert ring.between((1, 9), (1, 10)) == [step(9, 10)]


def test_only_the_last_are_kept() -> None:
    ring = ring_of(*range(MAX_STEPS + 5))
    assert len(ring) == MAX_STEPS
    assert ring.between((1, 3), (1, MAX_STEPS + 4)) is None
    assert len(ring.between((1, 4), (1, MAX_STEPS + 4)) or ()) == MAX_STEPS


def test_a_step_is_sent_as_a_delta_and_then_its_events() -> None:
    frames = step(3, 4).frames(b"feed:t1")
    delta, event = frames.index(b'"type":"delta"'), frames.index(b'"type":"event"')
    assert delta < event
    assert b'"topic":"feed:t1","from":[1,3],"version":[1,4],"server_time":5,"data":{"set":{}}' in frames
    assert b'"topic":"feed:t1","version":[1,4],"event":"offer"' in frames
