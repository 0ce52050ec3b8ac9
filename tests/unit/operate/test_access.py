"""At which server operators' commands arrive, and as whom."""

import json
import time
from pathlib import Path

import pytest

from haulcast.config import DEVELOPMENT_KEY, load
from haulcast.errors import ConfigError
from haulcast.operate.access import Access, find_access
from haulcast.ports import Role
from haulcast.transport.auth import KeyRing, Principal

SECRET = json.dumps([{"kid": "k", "alg": "HS256", "secret": "s" * 32}])
PRODUCTION = {"HAULCAST_ENV": "production", "HAULCAST_ORIGINS": "", "HAULCAST_JWT_KEYS": SECRET}


def access(
    environ: dict[str, str],
    *,
    role: Role = Role.OPERATOR,
    url: str | None = None,
    file: Path | None = None,
    tenant: str | None = "acme",
    user: str | None = None,
) -> Access:
    return find_access(load(environ), role, url, file, tenant, user)


def whose(token: str) -> Principal:
    return KeyRing([DEVELOPMENT_KEY]).verify(token, time.time_ns() // 1_000_000)


def token_of(tenant: str) -> str:
    keys = KeyRing([DEVELOPMENT_KEY])
    return keys.sign(tenant=tenant, role=Role.OPERATOR, user="op", now_ms=time.time_ns() // 1_000_000)


@pytest.mark.parametrize(
    ("environ", "argument", "url"),
    [
        ({}, None, "http://127.0.0.1:8080"),
        ({"HAULCAST_PORT": "9000", "HAULCAST_HOST": "0.0.0.0"}, None, "http://127.0.0.1:9000"),
        ({"HAULCAST_URL": "https://haulcast.example.com/"}, None, "https://haulcast.example.com"),
        ({"HAULCAST_URL": "https://haulcast.example.com"}, "http://[::1]:8080/", "http://[::1]:8080"),
        ({"HAULCAST_PORT": "0", "HAULCAST_URL": "http://node1:8080/base"}, None, "http://node1:8080/base"),
    ],
)
def test_the_argument_comes_before_the_variable_and_that_before_this_machine(
    environ: dict[str, str], argument: str | None, url: str
) -> None:
    assert access({**environ, "HAULCAST_TOKEN": "x.y.z"}, url=argument).url == url


def test_without_a_port_there_has_to_be_an_address() -> None:
    with pytest.raises(ConfigError, match="give --url"):
        access({"HAULCAST_PORT": "0"})


@pytest.mark.parametrize(
    "url", ["haulcast.example.com", "ftp://x", "http://", "http://me:secret@x", "http://x?a=secret", "http://x:99999"]
)
def test_what_is_no_address_is_refused_and_not_quoted(url: str) -> None:
    with pytest.raises(ConfigError, match="HAULCAST_URL is no address of a server: give http") as refused:
        load({"HAULCAST_URL": url})
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.ADMIN])
def test_in_development_a_token_is_signed_for_the_tenant(role: Role) -> None:
    principal = whose(access({}, role=role, user="op7").token)
    assert (principal.tenant_id, principal.role, principal.user_id) == ("acme", role, "op7")


@pytest.mark.parametrize("url", ["http://localhost:9", "http://127.0.0.2", "http://[::1]:9", "https://localhost/base"])
def test_a_token_is_signed_for_this_machine(url: str) -> None:
    assert whose(access({}, url=url).token).tenant_id == "acme"


@pytest.mark.parametrize("url", ["http://node1:9", "https://10.0.0.1", "http://[::2]", "http://localhost.example.com"])
def test_no_token_is_signed_for_another_machine(url: str) -> None:
    """The development key is known to everybody: a server elsewhere has keys of its own."""
    with pytest.raises(ConfigError, match=r"is not this machine and needs a token.*HAULCAST_TOKEN"):
        access({}, url=url)
    assert access({"HAULCAST_TOKEN": "x.y.z"}, url=url).token == "x.y.z"


def test_in_development_the_audit_names_who_sits_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "asha")
    assert whose(access({}).token).user_id == "asha"
    monkeypatch.setenv("LOGNAME", "nobody here")
    assert whose(access({}).token).user_id == "operator"


def test_in_development_there_has_to_be_a_tenant() -> None:
    with pytest.raises(ConfigError, match="give --tenant"):
        access({}, tenant=None)
    with pytest.raises(ConfigError, match="letters, digits"):
        access({}, tenant="acme corp")


def test_in_production_there_has_to_be_a_token() -> None:
    """Who can read the server's keys on its machine is not therefore an operator."""
    with pytest.raises(ConfigError, match="HAULCAST_TOKEN"):
        access(PRODUCTION)
    assert access({**PRODUCTION, "HAULCAST_TOKEN": " x.y.z\n"}).token == "x.y.z"


def test_a_file_comes_before_the_variable(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("a.b.c\n")
    assert access({"HAULCAST_TOKEN": "x.y.z"}, file=file, tenant=None).token == "a.b.c"


@pytest.mark.parametrize("content", ["", "two words", "line\nline", "tök", "a\0b"])
def test_what_is_no_token_is_refused_and_not_quoted(tmp_path: Path, content: str) -> None:
    file = tmp_path / "token"
    file.write_text(content)
    with pytest.raises(ConfigError, match="is no token") as refused:
        access({}, file=file)
    assert str(file) in str(refused.value)
    assert not content or content not in str(refused.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{tmp_path}/none: No such file"):
        access({}, file=tmp_path / "none")


def test_a_token_of_another_tenant_is_refused_before_anything_is_asked() -> None:
    token = token_of("acme")
    assert access({"HAULCAST_TOKEN": token}).token == token
    with pytest.raises(ConfigError, match="for the tenant acme, not for rival") as refused:
        access({"HAULCAST_TOKEN": token}, tenant="rival")
    assert token not in str(refused.value)


def test_a_token_names_its_tenant() -> None:
    assert access({"HAULCAST_TOKEN": token_of("acme")}, tenant=None).tenant == "acme"
    assert access({}).tenant == "acme"
    assert access({"HAULCAST_TOKEN": "x.y.z"}, tenant=None).tenant is None


def test_the_token_is_not_in_the_repr() -> None:
    assert "x.y.z" not in repr(access({"HAULCAST_TOKEN": "x.y.z"}))
    assert "x.y.z" not in repr(load({"HAULCAST_TOKEN": "x.y.z"}))
