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
CLUSTER = {
    "HAULCAST_DATABASE_URL": "postgresql://haulcast:hush@db.example/haulcast",
    "HAULCAST_REDIS_URL": "redis://:hush@cache.example/0",
}


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


def test_the_map_has_the_tiles_that_are_chosen_or_none() -> None:
    assert load({}).tiles is None
    assert load({"HAULCAST_TILES_URL": "", "HAULCAST_TILES_ATTRIBUTION": "them"}).tiles is None
    chosen = load(
        {"HAULCAST_TILES_URL": "https://tiles.example.com/{z}/{x}/{y}.png", "HAULCAST_TILES_ATTRIBUTION": "them"}
    ).tiles
    assert chosen is not None
    assert (chosen.origin, chosen.attribution) == ("https://tiles.example.com", "them")


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
        ("HAULCAST_TILES_URL", "https://tiles.example.com/"),
        ("HAULCAST_NODE_PORT", "no"),
        ("HAULCAST_NODE_PORT", "8080"),  # the port itself
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
    assert "hush" not in repr(load(CLUSTER))


def test_without_stores_a_node_is_on_its_own() -> None:
    for environ in ({}, {"HAULCAST_DATABASE_URL": "", "HAULCAST_REDIS_URL": ""}):
        config = load(environ)
        assert (config.clustered, config.database_url, config.redis_url) == (False, None, None)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql"])
def test_with_both_stores_it_is_one_of_a_cluster(scheme: str) -> None:
    config = load({**CLUSTER, "HAULCAST_DATABASE_URL": f"{scheme}://haulcast:hush@127.0.0.1:5432/haulcast"})
    assert config.clustered
    assert config.database_url == f"{scheme}://haulcast:hush@127.0.0.1:5432/haulcast"
    assert config.redis_url == CLUSTER["HAULCAST_REDIS_URL"]


@pytest.mark.parametrize(("given", "missing"), [tuple(CLUSTER), tuple(CLUSTER)[::-1]])
def test_one_store_without_the_other_is_refused(given: str, missing: str) -> None:
    with pytest.raises(ConfigError, match=f"{given} is set and {missing} is not"):
        load({given: CLUSTER[given]})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HAULCAST_DATABASE_URL", "mysql://haulcast:hush@db/haulcast"),
        ("HAULCAST_DATABASE_URL", "haulcast:hush@db/haulcast"),
        ("HAULCAST_DATABASE_URL", "postgresql://haulcast:hu@sh@db/haulcast"),
        ("HAULCAST_DATABASE_URL", "postgresql://haulcast:hush@db:65536/haulcast"),
        ("HAULCAST_DATABASE_URL", "postgresql://haulcast:hush@/haulcast"),
        ("HAULCAST_REDIS_URL", "postgresql://haulcast:hush@db/haulcast"),
        ("HAULCAST_REDIS_URL", "redis://:hush@cache:port/0"),
    ],
)
def test_a_store_that_cannot_be_reached_by_its_address_is_refused_without_its_password(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=name) as refused:
        load({**CLUSTER, name: value})
    assert "hu" not in str(refused.value).replace("haulcast", "")


@pytest.mark.parametrize(
    ("database_url", "redis_url", "exposed"),
    [
        ("postgresql://u@localhost/d", "redis://127.0.0.1", ()),
        ("postgresql:///d?host=/var/run/postgresql", "redis://[::1]:6379", ()),
        ("postgresql://u@db/d?sslmode=verify-full", "rediss://cache", ()),
        ("postgresql://u@db/d?sslmode=prefer", "rediss://cache", ("HAULCAST_DATABASE_URL",)),
        ("postgresql://u@127.0.0.1,10.0.0.7:5433/d", "redis://10.0.0.8", tuple(CLUSTER)),
    ],
)
def test_a_store_that_is_reached_over_a_network_in_plain_text_is_known(
    database_url: str, redis_url: str, exposed: tuple[str, ...]
) -> None:
    assert load({"HAULCAST_DATABASE_URL": database_url, "HAULCAST_REDIS_URL": redis_url}).exposed == exposed


@pytest.mark.parametrize("url", ["http://127.0.0.1:5000", "https://router:hush@osrm.example/maps/india"])
def test_an_osrm_is_used_if_there_is_one(url: str) -> None:
    config = load({"HAULCAST_OSRM_URL": url})
    assert config.osrm_url == url
    assert "hush" not in repr(config)
    for environ in ({}, {"HAULCAST_OSRM_URL": ""}):
        assert load(environ).osrm_url is None


@pytest.mark.parametrize(
    "url",
    [
        "osrm:5000",
        "ftp://router:hush@osrm",
        "http://router:hush@",
        "http://router:hu@sh@osrm:5000",
        "http://router:hush@osrm:65536",
        "http://router:hush@osrm/?profile=car",
        "http://router:hush@osrm,other:5000",
    ],
)
def test_an_osrm_that_cannot_be_reached_by_its_address_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ConfigError, match="HAULCAST_OSRM_URL") as refused:
        load({"HAULCAST_OSRM_URL": url})
    assert "hu" not in str(refused.value)


def test_a_node_has_a_port_of_its_own_if_it_is_given_one() -> None:
    assert load({}).node_port is None
    assert load({"HAULCAST_NODE_PORT": "0"}).node_port is None
    assert load({"HAULCAST_NODE_PORT": "8081"}).node_port == 8081


def test_every_variable_is_documented_in_the_readme() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    assert [name for name in VARIABLES if name not in readme] == []
