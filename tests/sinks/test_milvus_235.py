"""A real Milvus server, of the one release that can be installed here, beside milvus-lite where they differ."""

from decimal import Decimal

import pyarrow as pa
import pytest

from tests.local.sockets import listening
from tests.sinks.contract import SCHEMA, Feed, car, rows_of
from vector_assets.engine.core import POSITION
from vector_assets.engine.errors import ConfigError, FencedError, TargetReplacedError, TransientError

pytestmark = pytest.mark.service

CARS = {
    "id": ("INT64", {}),
    "color": ("VARCHAR", {"max_length": 10}),
    "feature": ("FLOAT_VECTOR", {"dim": 3}),
}


@pytest.fixture
def make_cars(make_target, milvus_235):
    return lambda fields=CARS, **settings: make_target(fields, milvus_235, **settings)


def test_a_pipelines_batches_from_the_first_to_a_replaced_collection(make_cars):
    """Most of the contract in one go: a collection costs seconds here."""
    cars = make_cars()
    sink = cars.sink(None, sink__buffer___flush__max___rows=2)
    target = sink.prepare(SCHEMA, ("id",))
    assert target.notes[0].startswith("MILVUS_BELOW_2_4: the server is v2.3.5")
    assert target.incarnation.isdigit()
    feed = Feed(sink)
    first = feed.token(6)
    staged = feed.stage(rows_of(car(1), car(2), car(3, None), car(4, feature="[1,2,NaN]"), car(5), car(6)))
    assert [row[POSITION] for row in staged.rejected.to_pylist()] == [2, 3]
    assert sink.find(first, None) == "ABSENT"
    receipt = sink.commit(staged)
    assert sink.find(first, None) == "APPLIED"
    assert sink.commit(staged) == receipt
    feed.apply(car(2, "blue"), car(7), deletes=(1, 99))
    assert {row["id"]: row["color"] for row in cars.rows()} == {2: "blue", 5: "red", 6: "red", 7: "red"}
    assert cars.server.count(cars.collection) == 4
    assert sorted(row for batch in sink.scan() for row in batch.column("id").to_pylist()) == [2, 5, 6, 7]
    with pytest.raises(FencedError):
        sink.commit(Feed(sink, fence=2).stage(rows_of(car(1, "black"), car(2, "black"))))
    staged = feed.stage(rows_of(car(8)))
    cars.server.client.drop_collection(cars.collection)
    with pytest.raises(TargetReplacedError, match="was dropped"):
        sink.commit(staged)


PEOPLE = {
    "id": ("INT64", {}),
    "name": ("VARCHAR", {"max_length": 10, "is_partition_key": True}),
    "vec": ("FLOAT_VECTOR", {"dim": 2}),
}
PEOPLE_SCHEMA = pa.schema([("id", pa.int64()), ("name", pa.string()), ("vec", pa.list_(pa.float32()))])


@pytest.mark.parametrize("is_lite", [True, False], ids=["milvus-lite", "2.3.5"])
def test_a_row_whose_partition_key_changes_is_in_its_new_partition_only(make_target, milvus, request, is_lite):
    """2.3.5 puts upserted rows where a filter by the partition key does not look, so they are deleted and inserted."""
    server = milvus if is_lite else request.getfixturevalue("milvus_235")
    people = make_target(PEOPLE, server, num_partitions=8)
    sink = people.sink(PEOPLE_SCHEMA, ("id",), partitionKey__enabled="true")
    feed = Feed(sink)
    names = "abcd"
    for shift in range(2):
        rows = [(number, names[(number + shift) % 4], [1.0, 2.0]) for number in range(16)]
        sink.commit(feed.stage(rows_of(*rows, schema=PEOPLE_SCHEMA)))
    for place, name in enumerate(names):
        found = [row["id"] for row in people.rows(f'name == "{name}"')]
        assert found == [number for number in range(16) if (number + 1) % 4 == place]
    assert server.count(people.collection) == 16
    keys = pa.table({"id": pa.array(range(15), pa.int64()), POSITION: pa.array(range(15), pa.int64())})
    sink.commit(feed.stage(rows_of(schema=PEOPLE_SCHEMA), keys))
    assert [row["id"] for row in people.rows()] == [15]


@pytest.mark.parametrize("is_lite", [True, False], ids=["milvus-lite", "2.3.5"])
def test_a_fixed_partition_is_written_and_deleted_in_and_others_are_left_alone_by_servers(
    make_target, milvus, request, is_lite
):
    server = milvus if is_lite else request.getfixturevalue("milvus_235")
    cars = make_target(CARS, server, partitions=("a", "b"))
    one, other = Feed(cars.sink(partitionName="a")), Feed(cars.sink(partitionName="b"))
    one.apply(car(1), car(2))
    other.apply(car(3), car(4))
    one.apply(car(2, "blue"), deletes=(1, 3))
    assert {row["id"]: row["color"] for row in cars.rows(partition_names=["a"])} == {2: "blue"}
    # milvus-lite has one row of a key in all partitions, and removes it wherever it is
    assert [row["id"] for row in cars.rows(partition_names=["b"])] == ([4] if is_lite else [3, 4])
    assert [row for batch in one.sink.scan() for row in batch.column("id").to_pylist()] == [2]


TYPES = {
    "id": ("VARCHAR", {"max_length": 20}),
    "b": ("BOOL", {}),
    "i8": ("INT8", {}),
    "i16": ("INT16", {}),
    "i32": ("INT32", {}),
    "i64": ("INT64", {}),
    "f": ("FLOAT", {}),
    "d": ("DOUBLE", {}),
    "j": ("JSON", {}),
    "a": ("ARRAY", {"element_type": 5, "max_capacity": 4}),
    "v": ("FLOAT_VECTOR", {"dim": 2}),
}
TYPES_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("b", pa.bool_()),
        ("i8", pa.int8()),
        ("i16", pa.int16()),
        ("i32", pa.int32()),
        ("i64", pa.int64()),
        ("f", pa.float64()),
        ("d", pa.decimal128(10, 2)),
        ("j", pa.string()),
        ("a", pa.list_(pa.int32())),
        ("v", pa.list_(pa.float64())),
    ]
)
KEYS = ["plain", 'a"b', "c\\d", "it's", "gü\n\t☃", "\x01\x7f"]


@pytest.mark.parametrize("is_lite", [True, False], ids=["milvus-lite", "2.3.5"])
def test_every_scalar_type_arrives_and_is_read_back_as_it_is_stored(make_target, milvus, request, is_lite):
    server = milvus if is_lite else request.getfixturevalue("milvus_235")
    target = make_target(TYPES, server)
    sink = target.sink(TYPES_SCHEMA, ("id",))
    feed = Feed(sink)
    rows = rows_of(
        *((k, n % 2 == 0, -n, -n, -n, -(2**60), 0.5, Decimal("1.25"), '{"b": [1], "a": "ü"}', [n, -1], [n, 0.5])
          for n, k in enumerate(KEYS)),
        schema=TYPES_SCHEMA,
    )  # fmt: skip
    sink.commit(feed.stage(rows))
    found = {row["id"]: row for row in target.rows()}
    assert set(found) == set(KEYS)
    row = found["it's"]
    assert (row["b"], row["i8"], row["i16"], row["i32"], row["i64"]) == (False, -3, -3, -3, -(2**60))
    assert (row["f"], row["d"], list(row["a"]), list(row["v"])) == (0.5, 1.25, [3, -1], [3.0, 0.5])
    stored = sink.as_stored(rows)
    scanned = pa.Table.from_batches(sink.scan())
    assert scanned.schema.names == [name for name in stored.schema.names if name != POSITION]
    assert scanned.sort_by("id").equals(stored.drop_columns(POSITION).sort_by("id").cast(scanned.schema))
    keys = pa.table({"id": KEYS[1:], POSITION: pa.array(range(5), pa.int64())})
    sink.commit(feed.stage(rows_of(schema=TYPES_SCHEMA), keys))
    assert [row["id"] for row in target.rows()] == ["plain"]


@pytest.mark.parametrize(
    ("kind", "column", "good"),
    [
        ("BINARY_VECTOR", pa.binary(), b"\x0f"),
        ("FLOAT16_VECTOR", pa.list_(pa.float32()), [0.5] * 8),
    ],
    ids=["binary", "float16"],
)
def test_other_vectors_arrive(make_cars, kind, column, good):
    target = make_cars({"id": ("INT64", {}), "v": (kind, {"dim": 8})})
    schema = pa.schema([("id", pa.int64()), ("v", column)])
    sink = target.sink(schema, ("id",))
    sink.commit(Feed(sink).stage(rows_of((1, good), (2, good), schema=schema)))
    assert pa.Table.from_batches(sink.scan()).to_pylist() == [{"id": 1, "v": good}, {"id": 2, "v": good}]


def test_wrong_credentials_are_a_config_error_that_does_not_show_them(make_cars):
    cars = make_cars({})
    cars.server.login, right = {"user": "root", "password": "not the one"}, cars.server.login
    try:
        with pytest.raises(ConfigError, match="UNAUTHENTICATED") as caught:
            cars.sink()
    finally:
        cars.server.login = right
    assert "not the one" not in str(caught.value)
    with pytest.raises(ConfigError, match="database"):
        cars.sink(databaseName="nowhere")


def test_a_rate_limit_is_waited_for(make_cars):
    cars = make_cars()
    sink = cars.sink()
    feed = Feed(sink)
    cars.server.client.alter_collection_properties(cars.collection, {"collection.upsertRate.max.mb": "0.0001"})
    caught = None
    for number in range(50):
        try:
            feed.apply(*(car(number * 1000 + n) for n in range(1000)))
        except TransientError as error:
            caught = error
            break
    assert caught is not None
    assert caught.retry_after == 1.0


def test_nothing_but_the_forwarder_can_be_reached_from_outside_and_that_by_loopback_only(milvus_235):
    assert listening(milvus_235.pid) == {("127.0.0.1", milvus_235.port)}
