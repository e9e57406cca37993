"""The seed's step 3 over real services: its tables, its topic and its target table."""

import pytest

from tests.declare.seeds import flink_step, seed, with_values
from tests.e2e.test_seed import address, database  # noqa: F401  (fixtures)
from vector_assets import api


def car(number, axis=0):
    feature = ",".join(f"{number + axis}.{n}" for n in range(10))
    return f"{number}\t2026-03-01 12:00:00\tred\t{number}\t{{{feature}}}".encode()


@pytest.fixture
def topic(kafka):
    """The seed's topic, empty."""
    return kafka.create_topic(name="vector_ingest")


@pytest.fixture
def seed_text(kafka, postgres, address) -> str:  # noqa: F811
    values = {
        "your_instance_url": address, "your_username": postgres.user, "your_password": postgres.password,
        "your_broker_list": kafka.bootstrap_servers,
    }  # fmt: skip
    return with_values("\n".join(flink_step(seed(0))), values)


@pytest.fixture
def script(seed_text):
    return api.loads(seed_text, "car_info.sql")
