"""Frames, and when a client comes back."""

import pytest

from haulcast.client import ConnectionClosed, Event, ProtocolError, ServerError, Version
from haulcast.client.protocol import (
    MAX_FRAME_BYTES,
    SETTLED_S,
    Announcement,
    ComeBack,
    Delta,
    Ending,
    GiveUp,
    Reconnect,
    Reply,
    Snapshot,
    backoff_s,
    decode,
    encode,
    refused_hello,
    retry_delay_s,
    retry_in_s,
)


def policy(*, renewable: bool = False, random: float = 1.0) -> Reconnect:
    return Reconnect(renewable=renewable, random=lambda: random)


def come_back(decision: ComeBack | GiveUp) -> ComeBack:
    assert isinstance(decision, ComeBack)
    return decision


def given_up(decision: ComeBack | GiveUp) -> ConnectionClosed:
    assert isinstance(decision, GiveUp)
    return decision.error


def test_every_kind_of_frame_is_read() -> None:
    assert decode('{"re":"r1","ok":true,"data":{"a":1}}') == Reply("r1", {"a": 1})
    assert decode('{"type":"snapshot","topic":"feed:t7","version":[4,20],"server_time":7,"data":{"offers":{}}}') == (
        Snapshot("feed:t7", Version(4, 20), 7, {"offers": {}})
    )
    assert decode(
        '{"type":"delta","topic":"feed:t7","from":[4,20],"version":[4,21],"server_time":7,'
        '"data":{"set":{"/a":1},"del":["/b"]}}'
    ) == Delta("feed:t7", Version(4, 20), Version(4, 21), 7, {"/a": 1}, ("/b",))
    assert decode('{"type":"event","topic":"feed:t7","version":[4,21],"event":"offer","server_time":7,"data":{}}') == (
        Event("feed:t7", "offer", {}, Version(4, 21), 7)
    )


def test_an_announcement_is_read_with_all_that_it_says() -> None:
    data = '{"announcement_id":"a1","text":"Fog","at":5,"expires_at":9,"more":1}'
    assert decode(f'{{"type":"announcement","server_time":7,"data":{data}}}') == Announcement(
        "a1", 7, {"announcement_id": "a1", "text": "Fog", "at": 5, "expires_at": 9, "more": 1}
    )


def test_a_refusal_carries_the_error_as_the_server_said_it() -> None:
    frame = decode(
        '{"re":"r2","ok":false,"error":{"code":"REQUEST_ALREADY_TAKEN","message":"Somebody else was faster.",'
        '"retry":false,"data":{"remaining_requests":0}}}'
    )
    assert isinstance(frame, Reply)
    assert frame.error is not None
    assert (frame.to, frame.error.code, frame.error.retry) == ("r2", "REQUEST_ALREADY_TAKEN", False)
    assert frame.error.data == {"remaining_requests": 0}
    assert str(frame.error) == "REQUEST_ALREADY_TAKEN: Somebody else was faster."


def test_a_delta_may_leave_out_what_it_does_not_change() -> None:
    frame = decode('{"type":"delta","topic":"t","from":[1,1],"version":[1,2],"data":{}}')
    assert frame == Delta("t", Version(1, 1), Version(1, 2), 0, {}, ())


def test_a_frame_of_an_unknown_kind_is_none_of_ours() -> None:
    assert decode('{"type":"hint","data":{}}') is None
    assert decode('{"data":{}}') is None


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"announcement","server_time":7,"data":{}}',
        '{"type":"announcement","server_time":7,"data":{"announcement_id":1,"text":"x","at":1,"expires_at":2}}',
        "",
        "[]",
        "null",
        '{"re":1,"ok":true}',
        '{"re":"r","ok":false}',
        '{"re":"r","ok":true,"data":[]}',
        '{"type":"snapshot","data":{}}',
        '{"type":"snapshot","topic":"t","version":[1],"data":{}}',
        '{"type":"delta","topic":"t","version":[1,2],"data":{}}',
        '{"type":"delta","topic":"t","from":[1,1],"version":[1,2],"data":{"del":"/a"}}',
        '{"type":"event","topic":"t","version":["1",2],"event":"offer","data":{}}',
        "\ud800",
    ],
)
def test_what_is_not_the_protocol_is_told_apart(text: str) -> None:
    with pytest.raises(ProtocolError):
        decode(text)


def test_requests_that_no_server_takes_are_refused_at_once() -> None:
    assert encode("ping", {}, "r1") == '{"id":"r1","type":"ping","data":{}}'
    assert encode("ack", {"topic": "t"}) == '{"type":"ack","data":{"topic":"t"}}'
    for bad in ("", "x" * 65, "a\nb"):
        with pytest.raises(ValueError, match="request id"):
            encode("ping", {}, bad)
    with pytest.raises(ValueError, match="bytes"):
        encode("broadcast.create", {"note": "x" * MAX_FRAME_BYTES}, "r1")


def test_backoff_doubles_up_to_its_cap_and_is_jittered_down_to_nothing() -> None:
    assert [backoff_s(attempt, 0.25, 2.0, lambda: 1.0) for attempt in range(5)] == [0.25, 0.5, 1.0, 2.0, 2.0]
    assert backoff_s(10_000, 0.25, 2.0, lambda: 1.0) == 2.0
    assert backoff_s(3, 0.25, 2.0, lambda: 0.0) == 0.0


def test_a_retry_waits_at_least_as_long_as_the_server_asked() -> None:
    limited = ServerError("RATE_LIMITED", retry=True, data={"retry_after_ms": 1500})
    assert retry_delay_s(limited, 0, lambda: 0.0) == 1.5
    assert retry_delay_s(limited, 0, lambda: 1.0) == 1.6
    assert retry_delay_s(ServerError("BUSY", retry=True), 1, lambda: 1.0) == 0.2
    assert retry_delay_s(ServerError("BUSY", retry=True, data={"retry_after_ms": "soon"}), 0, lambda: 0.0) == 0.0


@pytest.mark.parametrize("code", [4003, 4004, 4005, 4009, 4099, 1002, 1007, 1009])
def test_codes_that_say_do_not_come_back_are_obeyed(code: int) -> None:
    error = given_up(policy(renewable=True).after(Ending(code, "because"), 100.0))
    assert (error.code, error.reason) == (code, "because")


def test_without_a_way_to_a_new_token_a_refused_one_is_the_end() -> None:
    assert given_up(policy().after(Ending(4001, ""), 100.0)).code == 4001


def test_a_new_token_is_asked_for_once_and_again_only_after_one_was_taken() -> None:
    reconnect = policy(renewable=True)
    assert come_back(reconnect.after(Ending(4001), 100.0)) == ComeBack(0.0, renew_token=True)
    assert given_up(reconnect.after(Ending(4001), 0.0)).code == 4001

    reconnect = policy(renewable=True)
    reconnect.after(Ending(4001), 100.0)
    reconnect.greeted()
    assert come_back(reconnect.after(Ending(4001), 3600.0)).renew_token


def test_a_hello_that_was_refused_says_whether_to_come_back() -> None:
    bad_token = refused_hello(ServerError("UNAUTHENTICATED"))
    assert come_back(policy(renewable=True).after(bad_token, 0.0)).renew_token
    assert isinstance(policy().after(bad_token, 0.0), GiveUp)
    assert isinstance(policy(renewable=True).after(refused_hello(ServerError("TENANT_NOT_FOUND")), 0.0), GiveUp)
    assert isinstance(policy().after(refused_hello(ServerError("BUSY", retry=True)), 0.0), ComeBack)


def test_41xx_waits_a_second_at_least_and_longer_each_time() -> None:
    reconnect = policy()
    assert [come_back(reconnect.after(Ending(4100), 0.0)).delay_s for _ in range(3)] == [3.0, 5.0, 9.0]
    assert come_back(policy(random=0.0).after(Ending(4129), 0.0)).delay_s == 1.0


def test_42xx_comes_back_at_once_or_when_told_but_does_not_spin() -> None:
    reconnect = policy()
    assert come_back(reconnect.after(Ending(4201, ""), 60.0)).delay_s == 0.0
    assert come_back(reconnect.after(Ending(4201, ""), 0.0)).delay_s == 0.5
    assert come_back(policy(random=0.0).after(Ending(4200, "draining; retry_in_s=7"), 60.0)).delay_s == 7.0


@pytest.mark.parametrize("code", [None, 1000, 1001, 1006, 1011, 1012, 3000])
def test_whatever_a_network_does_is_tried_again_with_growing_delays(code: int | None) -> None:
    reconnect = policy()
    delays = [come_back(reconnect.after(Ending(code), 0.0)).delay_s for _ in range(10)]
    assert delays[:4] == [0.25, 0.5, 1.0, 2.0]
    assert max(delays) == 20.0


def test_a_connection_that_lasted_starts_the_waiting_anew() -> None:
    reconnect = policy()
    for _ in range(5):
        reconnect.after(Ending(1006), SETTLED_S / 2)
    assert come_back(reconnect.after(Ending(1006), SETTLED_S)).delay_s == 0.25


def test_a_server_that_is_not_haulcast_is_not_asked_again() -> None:
    assert isinstance(policy().after(Ending(None, "404", fatal=True), 0.0), GiveUp)


def test_the_hint_is_read_out_of_the_reason() -> None:
    assert retry_in_s("draining retry_in_s=3") == 3.0
    assert retry_in_s("retry_in_s=0.5") == 0.5
    assert retry_in_s("") is None
    assert retry_in_s("retry_in_s=soon") is None
