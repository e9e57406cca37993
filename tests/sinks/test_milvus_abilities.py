"""What the commands ask of a Milvus sink beyond writing: recall, prune, read keys, sample, vet, diagnose."""

import time

import pyarrow as pa
import pytest

from tests.sinks.contract import SCHEMA, SPLIT, Feed, car, keys_of, rows_of
from vector_assets.engine import abilities
from vector_assets.engine.abilities import Recalled
from vector_assets.engine.core import POSITION, Batch
from vector_assets.engine.errors import ConfigError, PlanError
from vector_assets.sinks import milvus_audit, milvus_search, milvus_tokens

pytestmark = pytest.mark.service


@pytest.fixture
def cars(cars_collection):
    return cars_collection


@pytest.fixture
def sink(cars):
    return cars.sink()


ABILITIES = ("Auditable", "Checkable", "Creatable", "KeyReadable", "Prunable", "Recallable", "Remembering", "Sampling",
             "Searchable", "Vetting")  # fmt: skip


@pytest.mark.parametrize("ability", ABILITIES)
def test_the_sink_has_the_ability(cars, ability):
    assert isinstance(cars.sink(None), getattr(abilities, ability))


def test_the_newest_batch_its_fence_and_its_collection_are_recalled(sink):
    assert sink.recall("cars") == Recalled({}, ())
    assert sink.newest_seq("cars") == 0
    feed = Feed(sink, fence=7)
    for number in range(3):
        feed.apply(car(number))
    found = sink.recall("cars")
    assert (found.position, found.fence) == ({SPLIT: {"offset": 3}}, 7)
    assert found.incarnation == sink.inspect(SCHEMA, ("id",)).incarnation
    assert all(abs(batch.committed_ms / 1000 - time.time()) < 600 for batch in found.batches)
    assert sink.newest_seq("cars") == 3
    assert sink.newest_seq("trucks") == 0


def test_pruned_batches_are_gone_but_the_newest_and_the_next_one_lands(cars, sink, monkeypatch):
    monkeypatch.setattr(milvus_tokens, "_PAGE", 3)
    feed = Feed(sink)
    for number in range(12):
        feed.apply(car(number))
    assert sink.prune("trucks", 9) == 0
    assert sink.prune("cars", 8) == 8
    assert [batch.seq for batch in sink.recall("cars").batches] == [9, 10, 11, 12]
    assert sink.prune("cars", 99) == 3
    assert sink.prune("cars", 99) == 0
    assert sink.newest_seq("cars") == 12
    feed.apply(car(12))
    assert [row["id"] for row in cars.rows()] == list(range(13))
    sink.forget("cars")
    assert sink.recall("cars") == Recalled({}, ())


def test_a_database_without_tokens_knows_nothing_and_prunes_nothing(make_target, own_milvus):
    sink = make_target(None, own_milvus()).sink(None)
    assert sink.newest_seq("cars") == 0
    assert sink.prune("cars", 9) == 0
    found = [finding for finding in sink.diagnose() if "vector_assets_batches" in finding.what]
    assert [finding.what for finding in found] == ["vector_assets_batches will be made by the first run"]


def test_rows_are_read_by_key_a_thousand_at_a_time(sink, monkeypatch):
    monkeypatch.setattr(milvus_audit, "_KEYS", 2)
    Feed(sink).apply(*(car(number) for number in range(6)))
    assert sorted(sink.rows_of(keys_of(5, 1, 99, 3, 0)).column("id").to_pylist()) == [0, 1, 3, 5]
    none = sink.rows_of(keys_of())
    assert (none.num_rows, none.schema) == (0, next(sink.scan()).schema)
    stored = sink.as_stored_keys(keys_of(4, 2, first=7))
    assert stored.to_pydict() == {"id": [4, 2], POSITION: [7, 8]}
    assert stored.schema.field("id").type == pa.int64()


def test_a_sample_is_of_rows_that_are_there_and_differs(make_target, monkeypatch):
    monkeypatch.setattr(milvus_audit, "page_rows", lambda fields: 16)
    monkeypatch.setattr(milvus_search, "_SAMPLED_ROWS", 7)
    sink = make_target().sink()
    assert sink.sample(5) == ()
    Feed(sink).apply(*(car(number, feature=f"[{number},1,0.5]") for number in range(100)))
    drawn = [sink.sample(20), sink.sample(20)]
    assert all(len(set(sample)) == 20 for sample in drawn)
    assert {row[1:] for sample in drawn for row in sample} == {(1.0, 0.5)}
    assert set(drawn[0]) != set(drawn[1])
    assert {row[0] for row in sink.sample(1000)} == set(range(100))
    with pytest.raises(ConfigError, match="no vector field colour"):
        sink.sample(1, column="colour")


def test_what_would_be_refused_is_told_without_writing(cars, sink):
    rows = rows_of(car(1), car(2, color="far too long a colour"), car(3, feature="[1,2]"))
    assert sink.vet(Batch(rows, keys_of(9, first=3))).column(POSITION).to_pylist() == [1, 2]
    assert cars.rows() == []


def test_a_sample_or_a_diagnosis_of_a_missing_collection_says_so(make_target):
    sink = make_target({}).sink(None)
    with pytest.raises(PlanError, match="does not exist"):
        sink.sample(3)
    (problem,) = [finding for finding in sink.diagnose() if finding.level == "problem"]
    assert "does not exist" in problem.what
    assert "target create" in problem.remedy


def test_a_diagnosis_tells_server_indexes_rows_and_tokens(cars, sink):
    Feed(sink).apply(car(1), car(2))
    said = {finding.what: finding.level for finding in sink.diagnose()}
    assert set(said.values()) == {"ok"}
    text = "\n".join(said)
    for wanted in ("Milvus answers at 127.0.0.1", "feature FloatVector(3) has an index: FLAT by L2", "has 2 rows",
                   "positions and batches is there"):  # fmt: skip
        assert wanted in text
    cars.server.client.release_collection(cars.collection)
    (warning,) = [finding for finding in sink.diagnose() if finding.level == "warning"]
    assert "is not loaded" in warning.what
    cars.server.client.drop_index(cars.collection, "feature")
    assert any("feature has no index" in finding.what for finding in sink.diagnose() if finding.level == "warning")


def test_a_server_before_2_4_is_a_warning(make_target, milvus_235):
    (warning,) = [f for f in make_target({}, milvus_235).sink(None).diagnose() if f.level == "warning"]
    assert "MILVUS_BELOW_2_4" in warning.what
    assert "v2.3.5" in warning.what
