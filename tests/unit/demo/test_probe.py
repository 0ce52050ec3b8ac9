"""What counts as the time that a broadcast was out of reach."""

from haulcast.demo.probe import Answer, longest_wait_s


def test_it_is_the_longest_that_anybody_had_to_wait_for_an_answer() -> None:
    asked = [1.0, 2.0, 3.0]
    assert longest_wait_s(asked, [Answer(1.0, 1.1), Answer(2.0, 2.5), Answer(3.0, 3.2)], since_s=0.0) == 0.5


def test_a_question_that_was_lost_waits_for_the_next_one_that_is_answered() -> None:
    asked = [1.0, 2.0, 3.0]
    assert longest_wait_s(asked, [Answer(1.0, 1.25), Answer(3.0, 3.5)], since_s=0.0) == 1.5


def test_answers_that_overtake_each_other_count_by_when_they_came() -> None:
    assert longest_wait_s([1.0, 2.0], [Answer(2.0, 2.25), Answer(1.0, 4.0)], since_s=0.0) == 1.25


def test_what_was_asked_before_and_what_is_still_open_does_not_count() -> None:
    assert longest_wait_s([1.0, 5.0, 9.0], [Answer(1.0, 4.0), Answer(5.0, 5.5)], since_s=2.0) == 0.5
    assert longest_wait_s([1.0], [Answer(1.0, 4.0)], since_s=2.0) is None
