"""Kafka to Iceberg with columns that evolve: the table rebuilds every document, whatever stopped the run."""

import json
from dataclasses import replace
from decimal import Decimal

import pytest

from tests.engine.memory import MemorySource, World
from tests.sinks.iceberg_target import lake  # noqa: F401  (fixture)
from vector_assets.engine.errors import FatalError
from vector_assets.engine.evolution import check_evolvable
from vector_assets.engine.run import Runner
from vector_assets.engine.schema import Table
from vector_assets.engine.schema_history import history
from vector_assets.formats.lake_fields import RESCUED, rebuild
from vector_assets.formats.lake_infer import infer
from vector_assets.formats.lake_json import LakeJsonDecoder, LakeJsonOptions
from vector_assets.sinks.iceberg import IcebergSink
from vector_assets.sources.kafka import KafkaSource
from vector_assets.sources.kafka_options import KafkaOptions

pytestmark = pytest.mark.service
HOUR = "2999-01-01-00:00"


def documents() -> list[bytes]:
    """Records whose members change on the way; one is poison."""
    found = [{"id": n, "who": {"name": f"n{n}"}} for n in range(300)]
    for n in range(120, 300):
        found[n]["colour"] = "red" if n % 2 else None
    for n in range(200, 300):
        found[n]["who"]["age"] = n / 4
    found[250]["id"] = 2**70
    texts = [json.dumps(document).encode() for document in found]
    texts[77] = b'{"id":lag}'
    return texts


@pytest.fixture
def world(tmp_path, kafka, lake):  # noqa: F811
    topic = kafka.create_topic(partitions=1)
    kafka.produce(topic, documents(), partition=0)
    fields = infer(documents()[:50], 2).fields
    decoder = LakeJsonDecoder(fields, LakeJsonOptions(layers=2, drift="evolve"))
    table = Table("orders", decoder.columns)
    given = {
        "connector": "kafka", "topic": topic, "properties.bootstrap.servers": kafka.bootstrap_servers,
        "scan.startup.mode": "earliest-offset", "format": "raw",
    }  # fmt: skip
    options = KafkaOptions.parse(given, "connector kafka")

    class LakeWorld(World):
        def pipeline(self):
            return replace(
                super().pipeline(), decoder=decoder, source_table=table, sink_table=table, schema=table.schema,
                source_options=options, sink_options=lake.options(),
                open_source=lambda: KafkaSource(options, table, pipeline="numbers"),
                open_sink=lambda: IcebergSink(lake.options(), table, "numbers"),
            )  # fmt: skip

    check_evolvable(decoder, IcebergSink, ())
    made = LakeWorld(tmp_path, MemorySource())
    made.settings["vector-assets.batch.max-rows"] = "40"
    return made


@pytest.mark.parametrize("failing", [None, "evolved:1:raise", "evolved:2:raise", "staged:4:raise", "committed:4:raise"])
def test_an_iceberg_table_follows_its_documents(world, lake, monkeypatch, failing):  # noqa: F811
    if failing:
        monkeypatch.setattr("vector_assets.engine.env._passes", {})
        monkeypatch.setenv("VECTOR_ASSETS_FAIL_AT", failing)
        with world.session() as session, pytest.raises(FatalError, match="failpoint"):
            list(Runner(session).drain(HOUR))
        monkeypatch.delenv("VECTOR_ASSETS_FAIL_AT")
    with world.session() as session:
        list(Runner(session).drain(HOUR))
        with session.leased() as stages:
            fields = stages.schemas.current.pipeline.decoder.fields
        changes = [c for v in history(session.ledger, "numbers", session.pipeline.target) for c in v.changes]
    assert [(each.name, each.spelled) for each in fields] == [
        ("id", "BIGINT"), ("who_name", "STRING"), ("colour", "STRING"), ("who_age", "DOUBLE")
    ]  # fmt: skip
    # Iceberg has no way from BIGINT to DECIMAL: those values are rescued
    assert [(change.what, change.offset, change.refused is not None) for change in changes] == [
        ("column colour STRING added for colour", 121, False),
        ("column who_age DOUBLE added for who.age", 200, False),
        ("column id widened from BIGINT to DECIMAL(38, 0) for id", 250, True),
    ]
    sources = [json.loads(text, parse_float=Decimal) for n, text in enumerate(documents()) if n != 77]
    rows = lake.table().scan().to_arrow().to_pylist()
    rebuilt = sorted((rebuild(row, row[RESCUED], fields) for row in rows), key=lambda document: document["id"])
    assert rebuilt == sorted(sources, key=lambda document: document["id"])
    assert [letter.offset for letter in world.books.ledger.dead_letters.listed()] == [77]
