"""What operators read."""

from typing import Any

from haulcast.operate import show


def entry(number: int, command: str, **more: Any) -> dict[str, Any]:
    by = {"role": "operator", "user": "op1"}
    whole = {"number": number, "at": 1_790_000_000_000, "by": by, "command": command, "data": {}, "changes": {}}
    return {**whole, "version": number + 1, "outcome": None, **more}


def test_acknowledgements_are_told_node_by_node() -> None:
    nodes = [
        {"node": 3, "status": "acked", "after_ms": 4.0},
        {"node": 14, "status": "silent"},
        {"node": 5, "status": "gone"},
    ]
    reply = {"command": "pause", "number": 7, "version": 9, "complete": False, "nodes": nodes}
    reply["changes"] = {"paused": {"from": False, "to": True}}
    assert show.answer_text(reply).splitlines() == [
        "paused  false  ->  true",
        "node  3  followed after 4 ms",
        "node 14  has not answered; it will follow",
        "node  5  has died; what it had goes on elsewhere, as commanded",
        "pause is recorded and holds (version 9, number 7 in the log); 1 of 3 nodes has not answered",
    ]


def test_a_drained_node_leaves() -> None:
    nodes = [{"node": 3, "status": "acked", "after_ms": 12.5}]
    reply = {"command": "drain_node", "number": 7, "complete": True, "nodes": nodes}
    assert show.answer_text(reply).splitlines() == [
        "node 3  leaves, since 12.5 ms: it hands over what it has, and stops",
        "drain_node is done (number 7 in the log)",
    ]


def test_changes_are_told_once() -> None:
    changes = {"wave_interval_s": {"from": 15.0, "to": 10.0}}
    reply = {"command": "x", "number": 1, "version": 2, "complete": True, "nodes": [], "changes": changes}
    assert show.answer_text(reply).splitlines()[0] == "wave_interval_s  15  ->  10"
    assert "wave_interval_s" not in show.answer_text(reply, changes=False)


def test_what_was_so_already_is_told() -> None:
    reply = {"command": "pause", "number": 1, "version": 2, "complete": True, "nodes": [], "changes": {}}
    told = ["it was so already", "pause is done (version 2, number 1 in the log)"]
    assert show.answer_text(reply).splitlines() == told
    assert show.answer_text({**reply, "command": "announce"}).splitlines() == [
        "announce is done (version 2, number 1 in the log)"
    ]


def test_a_default_is_shown_where_it_differs() -> None:
    reply = {
        "version": 4,
        "paused": True,
        "modes": ["progressive", "blast"],
        "settings": {"wave_interval_s": 10.0, "dispatch_mode": "blast", "requests_per_s": None},
        "defaults": {"wave_interval_s": 15.0, "dispatch_mode": "progressive", "requests_per_s": None},
    }
    head, _, *rows = show.settings_text(reply, "acme: ").splitlines()
    assert head == (
        "acme: version 4, PAUSED: no new broadcasts and no new waves, mode blast (there are progressive, blast)"
    )
    assert [row.split() for row in rows] == [
        ["setting", "value", "default"],
        ["wave_interval_s", "10", "15"],
        ["dispatch_mode", "blast", "progressive"],
        ["requests_per_s", "null"],
    ]


def test_only_what_differs_is_a_difference() -> None:
    before = {"wave_interval_s": 10.0, "toggle_limit": 3}
    assert show.difference_text(before, {"wave_interval_s": 10, "toggle_limit": 4}) == "toggle_limit  3  ->  4"
    assert show.difference_text(before, {"wave_interval_s": 10}) == ""


def test_the_log_says_who_what_and_how_it_went() -> None:
    followed = {"complete": True, "nodes": [{"node": 1, "status": "acked"}, {"node": 2, "status": "acked"}]}
    missing = {"complete": False, "nodes": [{"node": 1, "status": "acked"}, {"node": 2, "status": "silent"}]}
    changes = {"toggle_limit": {"from": 3, "to": 4}}
    entries = [
        entry(12, "announce", data={"audience": "driver", "text": "Fog"}, outcome=followed),
        entry(11, "patch_settings", changes=changes, outcome=missing),
        entry(10, "drain_node", data={"node": 3}, version=None),
        entry(9, "pause", changes={"paused": {"from": False, "to": True}}, outcome=followed),
    ]
    head, *rows = show.log_text(entries, None).splitlines()
    assert head.split() == ["number", "when", "who", "what", "outcome"]
    at = "2026-09-21 14:13:20Z"
    assert [" ".join(row.split()) for row in rows] == [
        f"12 {at} operator op1 announce to driver: Fog 2 of 2",
        f"11 {at} operator op1 patch_settings: toggle_limit 3 -> 4 1 of 2, node 2 silent",
        f"10 {at} operator op1 drain_node 3 not known",
        f"9 {at} operator op1 pause 2 of 2",
    ]
    assert show.log_text([], None) == "nothing yet"
    assert show.log_text(entries, 9).endswith("there is more: --before 9")


def test_an_outcome_tells_those_who_have_not_followed() -> None:
    nodes = [{"node": number, "status": status} for number, status in enumerate(("acked", "gone", "silent", "gone"))]
    assert show.outcome({"nodes": nodes[:2]}) == "1 of 2, node 1 gone"
    assert show.outcome({"nodes": nodes}) == "1 of 4, nodes 1 and 3 gone, node 2 silent"


def test_what_others_did_is_told_in_the_order_in_which_it_held() -> None:
    entries = [entry(10, "resume"), entry(9, "pause"), entry(8, "pause")]
    assert [line.split()[1] for line in show.meanwhile_text(entries).splitlines()] == ["9", "10", "11"]


def test_nothing_that_somebody_wrote_steers_the_terminal() -> None:
    """The text of an announcement is another operator's."""
    text = show.log_text([entry(1, "announce", data={"audience": "driver", "text": "\x1b[2JFog\r\nnode 1"})], None)
    assert "\x1b" not in text
    assert "\r" not in text
    assert len(text.splitlines()) == 2
