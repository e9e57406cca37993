"""Spark SQL for tests: `spark`, one JVM for all tests of a worker (keep them in one file)."""

from collections.abc import Iterator

import pytest

from tests.fix_services import unavailable
from vector_assets.engine.errors import ConfigError, TransientError
from vector_assets.local.spark import Spark


@pytest.fixture(scope="session")
def spark() -> Iterator[Spark]:
    try:
        session = Spark()
    except (ConfigError, TransientError) as error:
        unavailable(f"spark: {error}")
    yield session
    session.close()
