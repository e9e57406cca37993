import pytest

from vector_assets.clients.kafka_native import is_available, missing
from vector_assets.engine.schema import Table
from vector_assets.sources.kafka import KafkaOptions, KafkaSource


@pytest.fixture(params=["python", "native"])
def either_way(request, monkeypatch):
    """Runs the test over both ways to take records."""
    if request.param == "native" and not is_available():
        pytest.skip(missing())
    monkeypatch.setenv("VECTOR_ASSETS_NATIVE", "on" if request.param == "native" else "off")
    return request.param


@pytest.fixture
def open_source():
    """Makes sources: `open_source(broker, topic, **{"properties.x": ...})`; all are closed after the test."""
    made = []

    def make(broker, topic, *, servers=None, stall_seconds=10.0, **options):
        given = {
            "connector": "kafka",
            **({"topic": topic} if topic else {}),
            "format": "raw",
            "scan.startup.mode": "earliest-offset",
            "properties.bootstrap.servers": servers or broker.bootstrap_servers,
            **options,
        }
        parsed = KafkaOptions.parse(given, "connector kafka")
        made.append(KafkaSource(parsed, Table("cars", ()), pipeline="cars", stall_seconds=stall_seconds))
        return made[-1]

    yield make
    for source in made:
        source.close()
