"""What every test shares: how many examples hypothesis tries, that a run in CI can be repeated exactly, and a Postgres
and a Redis for the tests that ask for one: given by the environment, or private and started when first asked for."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from haulcast.demo.stores import PrivatePostgres, PrivateRedis

settings.register_profile(
    "haulcast",
    deadline=None,
    max_examples=60,
    derandomize=os.environ.get("CI", "") not in ("", "0", "false"),
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],  # says more about the machine than about the test
)
settings.load_profile("haulcast")


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The address of a Postgres that all tests share, as a user who may create databases."""
    given = os.environ.get("HAULCAST_TEST_DATABASE_URL")
    if given:
        yield given
        return
    # Not pytest's directory: it is closed to the user that Postgres runs as, again whenever another run begins.
    with tempfile.TemporaryDirectory(prefix="haulcast-postgres-") as directory:
        postgres = PrivatePostgres(Path(directory), fsync=False)
        postgres.start()
        try:
            yield postgres.url
        finally:
            postgres.stop()


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The address of a Redis that all tests share."""
    given = os.environ.get("HAULCAST_TEST_REDIS_URL")
    if given:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="haulcast-redis-") as directory:
        redis = PrivateRedis(Path(directory))
        redis.start()
        try:
            yield redis.url
        finally:
            redis.stop()
