"""Configuration: every problem is found at the start and said in one sentence."""

import json
from pathlib import Path

import pytest

from haulcast.config import DEVELOPMENT_KEY, VARIABLES, Environment, load
from haulcast.errors import ConfigError
from haulcast.transport.auth import Algorithm, Key

SECRET = "a-secret-of-at-least-thirty-two-bytes"
KEYS = json.dumps([{"kid": "k1", "alg": "HS256", "secret": SECRET}])
PRODUCTION = {"HAULCAST_ENV": "production", "HAULCAST_JWT_KEYS": KEYS, "HAULCAST_ORIGINS": "https://a.example"}


def test_nothing_set_is_development_on_loopback() -> None:
    config = load({})
    assert (config.environment, config.host, config.port) == (Environment.DEVELOPMENT, "127.0.0.1", 8080)
    assert config.keys == (DEVELOPMENT_KEY,)
    assert config.journal_path == Path("var/haulcast.sqlite3")


def test_production_starts_with_keys_and_origins_of_its_own() -> None:
    config = load(PRODUCTION)
    assert config.keys == (Key("k1", Algorithm.HS256, SECRET),)
    assert config.origins == {"https://a.example"}


def test_an_audience_is_what_tokens_must_name() -> None:
    assert load({}).audience is None
    assert load({"HAULCAST_JWT_AUDIENCE": "dispatch"}).audience == "dispatch"


def test_production_may_allow_no_origin_at_all() -> None:
    assert load({**PRODUCTION, "HAULCAST_ORIGINS": ""}).origins == frozenset()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"HAULCAST_JWT_KEYS": ""}, "development key"),
        ({"HAULCAST_JWT_KEYS": KEYS.replace(SECRET, DEVELOPMENT_KEY.material)}, "development key"),
        ({"HAULCAST_JWT_KEYS": KEYS.replace("k1", DEVELOPMENT_KEY.kid)}, "development key"),
        ({"HAULCAST_ORIGINS": "*"}, "HAULCAST_ORIGINS"),
        ({"HAULCAST_ORIGINS": "https://a.example, *"}, "HAULCAST_ORIGINS"),
    ],
)
def test_production_refuses_development_defaults(change: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load({**PRODUCTION, **change})


def test_production_refuses_to_leave_the_origins_open_by_default() -> None:
    with pytest.raises(ConfigError, match="HAULCAST_ORIGINS"):
        load({name: value for name, value in PRODUCTION.items() if name != "HAULCAST_ORIGINS"})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HAULCAST_ENV", "prod"),
        ("HAULCAST_PORT", "http"),
        ("HAULCAST_PORT", "65536"),
        ("HAULCAST_PORT", "-1"),
        ("HAULCAST_LOG_LEVEL", "loud"),
        ("HAULCAST_JWT_KEYS", "[]"),
        ("HAULCAST_JWT_KEYS", "@/nowhere/keys.json"),
        ("HAULCAST_TYPO", "1"),
        ("HAULCAST_ORIGINS", "bare.example"),
        ("HAULCAST_ORIGINS", "https://a.example, https://b.example/path"),
    ],
)
def test_a_value_that_cannot_work_is_named_with_its_variable(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name):
        load({name: value})


@pytest.mark.parametrize(
    "keys",
    [
        f'[{{"kid": "k1", "alg": "HS256", "secret": "{SECRET}", "surplus": 1}}]',
        f'[{{"kid": "k1", "alg": "none", "secret": "{SECRET}"}}]',
        f'[{{"kid": "k1", "alg": "RS256", "secret": "{SECRET}"}}]',
        f'[{{"kid": "k1", "alg": "HS256", "secret": "{SECRET}", "secret_file": "f"}}]',
        f'[{{"kid": "k1", "alg": "HS256", "secret": "{SECRET}"',
    ],
)
def test_keys_that_cannot_be_used_are_refused_without_being_shown(keys: str) -> None:
    with pytest.raises(ConfigError, match="HAULCAST_JWT_KEYS") as refused:
        load({"HAULCAST_JWT_KEYS": keys})
    assert SECRET not in str(refused.value)


def test_keys_and_secrets_come_from_files(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET + "\n")
    (tmp_path / "rsa.pem").write_text("PEM")
    listed = tmp_path / "keys.json"
    listed.write_text(
        json.dumps(
            [
                {"kid": "new", "alg": "HS256", "secret_file": str(tmp_path / "secret")},
                {"kid": "old", "alg": "RS256", "pem_file": str(tmp_path / "rsa.pem")},
            ]
        )
    )
    assert load({"HAULCAST_JWT_KEYS": f"@{listed}"}).keys == (
        Key("new", Algorithm.HS256, SECRET),
        Key("old", Algorithm.RS256, "PEM"),
    )


def test_a_configuration_never_shows_its_secrets() -> None:
    assert SECRET not in repr(load(PRODUCTION))


def test_every_variable_is_documented_in_the_readme() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    assert [name for name in VARIABLES if name not in readme] == []
