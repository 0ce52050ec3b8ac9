"""The command line, as its users meet it."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from haulcast.cli import main
from haulcast.config import DEVELOPMENT_KEY, VARIABLES
from haulcast.ports import Role
from haulcast.transport.auth import KeyRing


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HAULCAST_DATA_DIR", str(tmp_path / "var"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("HAULCAST_PORT", str(port))


def test_a_printed_token_is_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", "--tenant", "acme", "--role", "driver", "--user", "d1"]) == 0
    principal = KeyRing([DEVELOPMENT_KEY]).verify(capsys.readouterr().out.strip(), time.time_ns() // 1_000_000)
    assert (principal.tenant_id, principal.role, principal.user_id) == ("acme", Role.DRIVER, "d1")


def test_whoever_reads_the_output_may_stop_at_any_time() -> None:
    """As `| head -1` does; nothing is said about that."""
    unread, output = os.pipe()
    os.close(unread)
    command = (sys.executable, "-m", "haulcast", "token", "--tenant", "acme", "--role", "driver", "--user", "d1")
    try:
        ran = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, timeout=30, check=False)
    finally:
        os.close(output)
    assert ran.stderr == b""


def test_a_token_for_an_impossible_name_is_refused_with_what_is_possible(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", "--tenant", "acme corp", "--role", "driver", "--user", "d1"]) == 2
    assert "letters, digits" in capsys.readouterr().err


def test_migrate_says_what_it_did_and_then_that_there_is_nothing_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["migrate"]) == 0
    assert "applied 0001" in capsys.readouterr().out
    assert main(["migrate"]) == 0
    assert "up to date" in capsys.readouterr().out


def test_a_bad_fleet_file_exits_with_1_and_the_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "fleet.jsonl").write_text(json.dumps({"kind": "ship"}))
    assert main(["fleet", "import", "--tenant", "acme", str(tmp_path / "fleet.jsonl")]) == 1
    assert "line 1" in capsys.readouterr().err


def test_a_fleet_for_an_unknown_tenant_is_refused_in_production(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HAULCAST_ENV", "production")
    monkeypatch.setenv("HAULCAST_ORIGINS", "")
    monkeypatch.setenv("HAULCAST_JWT_KEYS", json.dumps([{"kid": "k", "alg": "HS256", "secret": "s" * 32}]))
    (tmp_path / "fleet.jsonl").write_text(json.dumps({"kind": "transporter", "id": "t1"}))
    assert main(["fleet", "import", "--tenant", "acme", str(tmp_path / "fleet.jsonl")]) == 2
    assert "PUT /v1/tenants/acme" in capsys.readouterr().err


def test_doctor_finds_nothing_wrong_with_a_new_machine_but_names_the_development_key(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "the development key" in shown
    assert "not there yet" in shown
    assert "FAIL" not in shown


def test_doctor_fails_when_another_program_has_the_port(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        monkeypatch.setenv("HAULCAST_PORT", str(other.getsockname()[1]))
        assert main(["doctor"]) == 1
    assert "another program has the port" in capsys.readouterr().out


def test_doctor_looks_at_the_routing_server_and_does_not_fail_for_it(
    monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HAULCAST_PORT", "0")
    monkeypatch.setenv("HAULCAST_OSRM_URL", f"http://router:hush@127.0.0.1:{unused_tcp_port}")
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert f"OSRM at http://router@127.0.0.1:{unused_tcp_port}: unavailable" in shown
    assert "hush" not in shown


def test_doctor_fails_when_the_configuration_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HAULCAST_ENV", "production")
    assert main(["doctor"]) == 1
    assert "HAULCAST_JWT_KEYS" in capsys.readouterr().out


def test_doctor_fails_on_a_journal_that_is_no_database(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "haulcast.sqlite3").write_text("not a database, by any means")
    assert main(["doctor"]) == 1
    assert "FAIL  journal" in capsys.readouterr().out


def test_doctor_counts_what_is_in_the_journal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "fleet.jsonl").write_text(json.dumps({"kind": "transporter", "id": "t1"}))
    main(["fleet", "import", "--tenant", "acme", str(tmp_path / "fleet.jsonl")])
    assert main(["doctor"]) == 0
    assert "1 tenants, 0 live broadcasts" in capsys.readouterr().out


@pytest.mark.parametrize(
    "command",
    [
        *([], ["serve"], ["demo"], ["migrate"], ["token"], ["fleet", "import"], ["doctor"]),
        *(["settings"], ["settings", "show"], ["settings", "set"], ["settings", "history"]),
        *(["control"], ["control", "pause"], ["control", "resume"], ["control", "reload-settings"]),
        *(["control", "switch-mode"], ["control", "announce"], ["control", "drain-node"], ["control", "log"]),
    ],
    ids=" ".join,
)
def test_every_command_explains_itself(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    assert ended.value.code == 0
    assert len(capsys.readouterr().out) > 250
