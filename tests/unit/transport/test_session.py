import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haulcast.errors import ErrorCode
from haulcast.transport import wire
from haulcast.transport.session import (
    Close,
    Error,
    Greet,
    Limits,
    Output,
    Rate,
    Request,
    SendPing,
    SendPong,
    Session,
    State,
    TokenBucket,
)

LIMITS = Limits()
FOREVER = 1e9


def text(request_id: str | None = "r", request_type: str = "ping", **data: Any) -> str:
    frame = {"type": request_type, "data": data} | ({} if request_id is None else {"id": request_id})
    return json.dumps(frame)


HELLO = text("h", "hello", token="t")


def greeted(now: float = 0.0, token_ends: float = FOREVER, limits: Limits = LIMITS) -> Session:
    session = Session(limits, now)
    session.on_text(HELLO, now)
    session.greeted(token_ends, now)
    return session


def codes(outputs: list[Output]) -> list[str | int]:
    """The codes of what a client is told, in order."""
    return [
        output.error.code if isinstance(output, Error) else output.code
        for output in outputs
        if isinstance(output, Error | Close)
    ]


class TestHello:
    def test_leads_to_one_greeting_with_what_it_said(self) -> None:
        session = Session(LIMITS, 0.0)
        assert session.on_text(text("h", "hello", token="t", resume={"feed:t7": [4, 19]}), 0.0) == [
            Greet("h", "t", {"feed:t7": (4, 19)})
        ]
        assert session.state is State.GREETING

    def test_token_is_not_in_the_repr(self) -> None:
        assert "secret" not in repr(Greet("h", "secret", {}))

    @pytest.mark.parametrize("frame", [text(), "no json", text("r", "no.such.type"), text("r", "hello")])
    def test_another_first_frame_is_answered_and_closes(self, frame: str) -> None:
        session = Session(LIMITS, 0.0)
        told = codes(session.on_text(frame, 0.0))
        assert told[-1] == 4004
        assert len(told) == 2
        assert session.on_text(HELLO, 0.0) == []

    def test_may_be_preceded_by_pings(self) -> None:
        session = Session(LIMITS, 0.0)
        assert session.on_ping(b"x", 0.0) == [SendPong(b"x")]
        assert session.on_pong(0.0) == []
        assert isinstance(session.on_text(HELLO, 0.0)[0], Greet)

    def test_has_to_come_in_time(self) -> None:
        session = Session(LIMITS, 100.0)
        assert session.next_deadline() == 105.0
        assert session.on_time(104.9) == []
        session.on_ping(b"", 104.9)
        assert codes(session.on_time(105.0)) == [4004]

    def test_while_it_is_being_answered_nothing_is_due_and_requests_are_refused(self) -> None:
        session = Session(LIMITS, 0.0)
        session.on_text(HELLO, 0.0)
        assert session.next_deadline() is None
        assert session.on_time(1000.0) == []
        assert codes(session.on_text(text(), 0.0)) == [ErrorCode.HELLO_REQUIRED]
        assert codes(session.on_text(HELLO, 0.0)) == [ErrorCode.ALREADY_GREETED]
        assert session.state is State.GREETING

    def test_may_be_tried_again_after_it_could_not_be_answered(self) -> None:
        session = Session(LIMITS, 0.0)
        session.on_text(HELLO, 0.0)
        session.not_greeted(7.0)
        assert session.next_deadline() == 12.0
        assert isinstance(session.on_text(HELLO, 8.0)[0], Greet)

    def test_a_second_one_is_refused_and_the_connection_goes_on(self) -> None:
        session = greeted()
        assert codes(session.on_text(HELLO, 0.0)) == [ErrorCode.ALREADY_GREETED]
        assert session.state is State.OPEN

    @pytest.mark.parametrize("call", ["greeted", "not_greeted"])
    def test_an_answer_that_comes_after_the_close_changes_nothing(self, call: str) -> None:
        session = Session(LIMITS, 0.0)
        session.on_text(HELLO, 0.0)
        session.close(4200, "")
        if call == "greeted":
            session.greeted(FOREVER, 1.0)
        else:
            session.not_greeted(1.0)
        assert session.state is State.CLOSING
        assert session.next_deadline() is None


class TestRequests:
    def test_come_out_typed_and_in_order(self) -> None:
        session = greeted()
        frames = [text("1"), text("2", "subscribe", topic="feed:t7"), text("3", "transporter.online")]
        assert [output for frame in frames for output in session.on_text(frame, 0.0)] == [
            Request("1", wire.Ping()),
            Request("2", wire.Subscribe("feed:t7")),
            Request("3", wire.TransporterOnline()),
        ]

    @pytest.mark.parametrize(
        ("frame", "code", "request_id"),
        [
            ("{", ErrorCode.BAD_JSON, None),
            ("[]", ErrorCode.BAD_JSON, None),
            (text("7", "no.such.type"), ErrorCode.UNKNOWN_TYPE, "7"),
            (text("7", "subscribe"), ErrorCode.BAD_REQUEST, "7"),
            (text(None), ErrorCode.BAD_REQUEST, None),
        ],
    )
    def test_a_bad_frame_is_answered_and_the_connection_goes_on(
        self, frame: str, code: ErrorCode, request_id: str | None
    ) -> None:
        session = greeted()
        (answer,) = session.on_text(frame, 0.0)
        assert isinstance(answer, Error)
        assert (answer.error.code, answer.request_id) == (code, request_id)
        assert session.on_text(text("8"), 0.0) == [Request("8", wire.Ping())]

    def test_a_binary_frame_closes(self) -> None:
        assert codes(greeted().on_binary()) == [4005]

    def test_more_in_flight_than_allowed_are_busy_until_one_has_finished(self) -> None:
        session = greeted()
        for number in range(LIMITS.max_in_flight):
            assert codes(session.on_text(text(str(number)), 0.0)) == []
        assert codes(session.on_text(text("late"), 0.0)) == [ErrorCode.BUSY]
        session.finished()
        assert session.on_text(text("next"), 0.0) == [Request("next", wire.Ping())]
        assert codes(session.on_text(text("late"), 0.0)) == [ErrorCode.BUSY]

    def test_an_ack_needs_no_id_and_is_not_in_flight(self) -> None:
        session = greeted(limits=Limits(max_in_flight=0))
        frame = text(None, "ack", topic="feed:t7", version=[4, 21])
        assert session.on_text(frame, 0.0) == [Request(None, wire.Ack("feed:t7", (4, 21)))]


class TestRate:
    def test_a_burst_then_a_steady_rate(self) -> None:
        session = greeted()  # has taken one token
        taken = [codes(session.on_text(text("r", "ack", topic="t", version=[0, 0]), 0.0)) for _ in range(100)]
        assert taken[:99] == [[]] * 99
        (refused,) = taken[99:]
        assert refused == [ErrorCode.RATE_LIMITED]
        assert codes(session.on_text(text(), 0.019)) == [ErrorCode.RATE_LIMITED]
        assert codes(session.on_text(text(), 0.020)) == []

    def test_a_refusal_names_the_request_and_when_to_come_back(self) -> None:
        session = greeted(limits=Limits(burst_requests=1))
        (answer,) = session.on_text(text("7"), 0.005)
        assert isinstance(answer, Error)
        assert answer.request_id == "7"
        assert answer.error.data == {"retry_after_ms": 15}

    def test_a_refused_command_is_not_in_flight(self) -> None:
        session = greeted(limits=Limits(burst_requests=1, max_in_flight=1))
        session.on_text(text("refused"), 0.0)
        assert session.on_text(text("taken"), 1.0) == [Request("taken", wire.Ping())]

    def test_flooding_on_closes(self) -> None:
        session = greeted(limits=Limits(burst_requests=1))
        for _ in range(200):
            assert codes(session.on_text(text(), 0.0)) == [ErrorCode.RATE_LIMITED]
        assert codes(session.on_text(text(), 0.0)) == [ErrorCode.RATE_LIMITED, 4129]

    def test_refusals_that_are_far_apart_do_not_close(self) -> None:
        """One refusal more than allowed, but the first has left the window."""
        session = greeted(limits=Limits(burst_requests=1, requests_per_s=0.01))
        session.on_text(text(), 0.0)
        for _ in range(199):
            assert codes(session.on_text(text(), 9.0)) == [ErrorCode.RATE_LIMITED]
        assert codes(session.on_text(text(), 10.1)) == [ErrorCode.RATE_LIMITED]
        assert codes(session.on_text(text(), 19.0)) == [ErrorCode.RATE_LIMITED, 4129]

    def test_pings_and_pongs_count_as_well(self) -> None:
        session = greeted(limits=Limits(burst_requests=1))
        told: list[Output] = []
        for _ in range(200):
            told += session.on_ping(b"", 0.0)
        assert told == []
        assert codes(session.on_pong(0.0)) == [4129]

    @given(st.lists(st.floats(0.0, 3.0), max_size=400))
    def test_never_lets_more_through_than_burst_and_rate(self, steps: list[float]) -> None:
        bucket = TokenBucket(Rate(50.0, 100), 0.0)
        now, times = 0.0, []
        for step in steps:
            now += step / 100
            if bucket.take(now) == 0.0:
                times.append(now)
        for first, start in enumerate(times):
            for last in range(first, len(times)):
                assert last - first + 1 <= 100 + (times[last] - start) * 50.0 + 1e-6

    def test_long_silence_saves_up_no_more_than_a_burst(self) -> None:
        bucket = TokenBucket(Rate(50.0, 100), 0.0)
        assert [bucket.take(3600.0) == 0.0 for _ in range(101)] == [True] * 100 + [False]

    def test_a_rate_that_changes_holds_for_every_bucket_of_it_from_the_next_request_on(self) -> None:
        rate = Rate(50.0, 100)
        buckets = [TokenBucket(rate, 0.0), TokenBucket(rate, 0.0)]
        rate.per_s, rate.burst = 1.0, 2
        for bucket in buckets:
            assert [bucket.take(0.0) == 0.0 for _ in range(3)] == [True, True, False]
            assert bucket.take(1.0) == 0.0
        rate.per_s, rate.burst = 50.0, 100
        assert [buckets[0].take(3.0) == 0.0 for _ in range(101)] == [True] * 100 + [False]

    def test_a_session_is_held_to_the_rate_that_it_was_given_last(self) -> None:
        session = greeted()
        session.limit(Rate(0.001, 2))
        told = [codes(session.on_text(text(), 0.0)) for _ in range(3)]
        assert told == [[], [], [ErrorCode.RATE_LIMITED]]

    def test_a_clock_that_stands_still_or_steps_back_gives_no_tokens(self) -> None:
        bucket = TokenBucket(Rate(50.0, 1), 10.0)
        assert bucket.take(10.0) == 0.0
        assert bucket.take(5.0) > 0.0
        assert bucket.take(5.01) > 0.0


class TestHeartbeat:
    def test_whoever_is_silent_is_pinged_and_then_closed(self) -> None:
        session = greeted()
        assert session.next_deadline() == 25.0
        assert session.on_time(24.9) == []
        assert session.on_time(25.0) == [SendPing()]
        assert session.next_deadline() == 50.0
        assert session.on_time(50.0) == [SendPing()]
        assert session.next_deadline() == 60.0
        assert codes(session.on_time(60.0)) == [4202]

    @pytest.mark.parametrize("sign_of_life", ["text", "ping", "pong"])
    def test_any_frame_is_a_sign_of_life(self, sign_of_life: str) -> None:
        session = greeted()
        session.on_time(25.0)
        if sign_of_life == "text":
            session.on_text("garbage", 30.0)
        elif sign_of_life == "ping":
            session.on_ping(b"", 30.0)
        else:
            session.on_pong(30.0)
        assert session.next_deadline() == 55.0
        assert session.on_time(60.0) == [SendPing()]
        assert codes(session.on_time(90.0)) == [4202]

    def test_the_connection_ends_with_its_token(self) -> None:
        session = greeted(token_ends=10.0)
        assert session.next_deadline() == 10.0
        assert session.on_time(9.9) == []
        assert codes(session.on_time(10.0)) == [4001]

    @given(st.lists(st.tuples(st.floats(0.0, 40.0), st.booleans()), max_size=50), st.floats(0.0, 500.0))
    def test_the_next_deadline_always_has_something_to_do(
        self, steps: list[tuple[float, bool]], token_ends: float
    ) -> None:
        """Otherwise a timer set for it would ring for ever."""
        session = greeted(token_ends=token_ends)
        now = 0.0
        for step, speaks in steps:
            due = session.next_deadline()
            if due is None:
                break
            now = min(now + step, due)
            if now == due:
                assert session.on_time(now)
            elif speaks:
                session.on_pong(now)
        due = session.next_deadline()
        assert due is None or due >= now


class TestClosing:
    def test_nothing_leads_to_anything_any_more(self) -> None:
        session = greeted(token_ends=1.0)
        assert session.close(4200, "retry_in_s=1") == [Close(4200, "retry_in_s=1")]
        assert session.close(4100, "") == []
        assert session.on_text(text(), 0.0) == []
        assert session.on_ping(b"", 0.0) == []
        assert session.on_pong(0.0) == []
        assert session.on_binary() == []
        assert session.on_time(1000.0) == []
        assert session.next_deadline() is None

    def test_what_was_in_flight_may_still_finish(self) -> None:
        session = greeted()
        session.on_text(text(), 0.0)
        session.close(4200, "")
        session.finished()


frames = (
    st.sampled_from([HELLO, text(), text("x", "offer.accept"), text(None, "ack", topic="t", version=[0, 0]), "{"])
    | st.text()
)


@given(st.lists(st.tuples(st.sampled_from(["text", "ping", "pong", "binary", "time", "greet"]), frames)))
def test_whatever_comes_at_most_one_close_is_said_and_nothing_after_it(calls: list[tuple[str, str]]) -> None:
    session = Session(Limits(burst_requests=5, max_refusals=2), 0.0)
    said: list[Output] = []
    for step, (call, frame) in enumerate(calls):
        now = step * 0.01
        match call:
            case "text":
                said += session.on_text(frame, now)
            case "ping":
                said += session.on_ping(b"", now)
            case "pong":
                said += session.on_pong(now)
            case "binary":
                said += session.on_binary()
            case "time":
                said += session.on_time(now)
            case "greet":
                session.greeted(FOREVER, now)
    closes = [index for index, output in enumerate(said) if isinstance(output, Close)]
    assert closes in ([], [len(said) - 1])
