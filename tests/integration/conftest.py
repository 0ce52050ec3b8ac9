from collections.abc import Iterator

import pytest

from tests.databases import migrated_database


@pytest.fixture(scope="session")
def migrated_url(postgres_url: str) -> Iterator[str]:
    """A database that all tests of this directory share; each empties it before."""
    with migrated_database(postgres_url) as url:
        yield url
