"""Search, audit and creation of a collection, on milvus-lite."""

import numpy as np
import pyarrow as pa
import pytest

from tests.sinks.contract import SCHEMA, Feed, rows_of
from vector_assets.engine.abilities import DISTANCE, SearchQuery
from vector_assets.engine.core import POSITION
from vector_assets.engine.errors import ConfigError, PlanError
from vector_assets.engine.schema import Column, LogicalType, Table
from vector_assets.sinks import milvus_audit

pytestmark = pytest.mark.service

FIELDS = {
    "id": ("INT64", {}),
    "name": ("VARCHAR", {"max_length": 20}),
    "vec": ("FLOAT_VECTOR", {"dim": 4}),
    "other": ("FLOAT_VECTOR", {"dim": 2}),
}
PEOPLE = pa.schema(
    [("id", pa.int64()), ("name", pa.string()), ("vec", pa.list_(pa.float32())), ("other", pa.list_(pa.float32()))]
)


@pytest.fixture
def people(make_target):
    return make_target(FIELDS)


@pytest.fixture
def sink(people):
    return people.sink(PEOPLE, ("id",))


@pytest.fixture
def vectors(sink):
    """500 people with random vectors."""
    made = np.random.default_rng(3).random((500, 4), np.float32)
    rows = [(n, f"name {n % 5}", [float(x) for x in v], [1.0, 0.0]) for n, v in enumerate(made)]
    sink.commit(Feed(sink).stage(rows_of(*rows, schema=PEOPLE)))
    return made


@pytest.mark.parametrize("exact", [True, False], ids=["exact", "by index"])
def test_the_nearest_come_first_and_a_filter_holds(sink, vectors, exact):
    wanted = vectors[7]
    distances = np.square(vectors - wanted).sum(axis=1)
    result = sink.search(SearchQuery(tuple(map(float, wanted)), k=10, column="vec", exact=exact))
    assert result.rows.column_names == ["id", "name", DISTANCE]
    assert result.rows.column("id").to_pylist() == np.argsort(distances, kind="stable")[:10].tolist()
    assert result.rows.column(DISTANCE).to_pylist() == pytest.approx(np.sort(distances)[:10], abs=1e-5)
    filtered = sink.search(
        SearchQuery(tuple(map(float, wanted)), k=3, where='name == "name 1" and id < 400', column="vec", exact=exact)
    )
    members = [n for n in np.argsort(distances, kind="stable") if n % 5 == 1 and n < 400]
    assert filtered.rows.column("id").to_pylist() == members[:3]
    assert ("all" in result.how) == exact


def test_an_exact_search_takes_any_metric(sink, vectors):
    wanted = vectors[7]
    products = vectors @ wanted
    result = sink.search(SearchQuery(tuple(map(float, wanted)), k=3, column="vec", metric="ip", exact=True))
    assert result.rows.column("id").to_pylist() == np.argsort(-products)[:3].tolist()
    cosines = products / np.linalg.norm(vectors, axis=1)
    result = sink.search(SearchQuery(tuple(map(float, wanted)), k=3, column="vec", metric="COSINE", exact=True))
    assert result.rows.column("id").to_pylist() == np.argsort(-cosines)[:3].tolist()


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"vector": (1.0,) * 4}, "several vector fields, say which: vec, other"),
        ({"vector": (1.0,) * 3, "column": "vec"}, r"vec is FloatVector\(4\), the vector has 3 dimensions"),
        ({"vector": (1.0,) * 4, "column": "vek"}, "no vector field vek .did you mean 'vec'"),
        ({"vector": (1.0,) * 4, "column": "vec", "metric": "COSINE"}, "index of vec is by L2, not COSINE"),
        ({"vector": (1.0,) * 4, "column": "vec", "metric": "FAR", "exact": True}, "known metrics: L2, IP, COSINE"),
        ({"vector": (1.0,) * 4, "column": "vec", "where": "nothing > 1"}, "nothing"),
        ({"vector": (1.0,) * 4, "column": "vec", "where": "id >", "exact": True}, "id >"),
        ({"vector": (1.0, 2.0, 3.0, float("nan")), "column": "vec"}, "NaN"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_searched_is_named(sink, query, said):
    with pytest.raises(ConfigError, match=said):
        sink.search(SearchQuery(**query))


def test_an_empty_collection_has_no_nearest_row(sink):
    assert sink.search(SearchQuery((1.0,) * 4, column="vec", exact=True)).rows.num_rows == 0
    assert sink.search(SearchQuery((1.0,) * 4, column="vec")).rows.num_rows == 0


def test_a_scan_gives_every_row_once_in_pages_and_what_as_stored_says(sink, vectors, monkeypatch):
    monkeypatch.setattr(milvus_audit, "page_rows", lambda fields: 64)
    batches = list(sink.scan())
    assert max(batch.num_rows for batch in batches) <= 64
    scanned = pa.Table.from_batches(batches).sort_by("id")
    rows = rows_of(
        *((n, f"name {n % 5}", [float(x) for x in v], [1.0, 0.0]) for n, v in enumerate(vectors)),
        (900, "far too long a name for its field", [1.0] * 4, [1.0, 0.0]),
        schema=PEOPLE,
    )
    stored = sink.as_stored(rows)
    assert stored.column(POSITION).to_pylist() == list(range(500))
    assert scanned.equals(stored.drop_columns(POSITION))


def table(**types: LogicalType) -> Table:
    return Table("people", tuple(Column(name, kind) for name, kind in types.items()), ("id",))


CREATED = table(
    id=LogicalType("INT", nullable=False),
    name=LogicalType("VARCHAR", 30),
    city=LogicalType("VARCHAR", nullable=False),
    tags=LogicalType("ARRAY", children=(LogicalType("VARCHAR"),)),
    vec=LogicalType("ARRAY", children=(LogicalType("FLOAT"),)),
    text=LogicalType("VARCHAR"),
    words=LogicalType("MAP", children=(LogicalType("INT"), LogicalType("FLOAT"))),
)


def test_a_collection_is_made_from_the_schema_and_the_options_and_only_once(make_target):
    target = make_target({})
    sink = target.sink(
        None, table=CREATED, vector__dimensions="vec:3,text:2", vector__metrics="vec:COSINE",
        partitionKey__enabled="true", partitionKey__field="city",
    )  # fmt: skip
    said = sink.create_target(CREATED.schema, ("id",))
    assert said[0].startswith(
        f"collection {target.collection} was made: id Int64, name VarChar(30), city VarChar(65535)"
    )
    assert "field vec was given an index: AUTOINDEX by COSINE" in said
    assert sink.create_target(CREATED.schema, ("id",)) == (
        f"collection {target.collection} is there",
        *(f"field {name} has an index: {index}" for name, index in
          (("vec", "AUTOINDEX by COSINE"), ("text", "AUTOINDEX by L2"), ("words", "SPARSE_INVERTED_INDEX by IP"))),
    )  # fmt: skip
    fields = {field["name"]: field for field in target.server.client.describe_collection(target.collection)["fields"]}
    assert fields["id"]["is_primary"]
    assert fields["city"]["is_partition_key"]
    assert fields["name"]["nullable"]
    assert "nullable" not in fields["city"]
    assert fields["vec"]["params"]["dim"] == 3
    sink.prepare(CREATED.schema, ("id",))
    row = (1, None, "Rome", ["a"], [1.0, 2.0, 3.0], "[1,2]", [(7, 0.5)])
    sink.commit(Feed(sink).stage(rows_of(row, schema=CREATED.schema)))
    (found,) = target.rows()
    assert (found["city"], list(found["tags"]), found["words"]) == ("Rome", ["a"], {7: 0.5})


def test_a_partition_is_made_too(make_target):
    target = make_target({})
    sink = target.sink(None, vector__dimensions="feature:3", partitionName="p")
    assert "partition p was made" in sink.create_target(SCHEMA, ("id",))
    assert "partition p is there" in sink.create_target(SCHEMA, ("id",))


def test_what_is_there_and_does_not_fit_is_refused(cars_collection):
    with pytest.raises(PlanError, match=r"feature is FloatVector\(3\), option 'vector.dimensions' says 4"):
        cars_collection.sink(None, vector__dimensions="feature:4").create_target(SCHEMA, ("id",))


@pytest.mark.parametrize(
    ("options", "key", "schema", "said"),
    [
        ({}, ("id",), PEOPLE, "dimension of vector column vec is not known: say 'vector.dimensions' = 'vec:<number>'"),
        ({}, (), PEOPLE, "a key of one field"),
        (
            {"vector__dimensions": "feature:3"},
            ("color",),
            SCHEMA.set(1, pa.field("color", pa.float64())),
            "is a BIGINT",
        ),
        ({}, ("id",), SCHEMA, "no column is a vector"),
        (
            {"vector__dimensions": "feature:3,far:2"},
            ("id",),
            SCHEMA,
            "'vector.dimensions' names far; columns: id, color",
        ),
        ({"vector__dimensions": "id:3"}, ("id",), SCHEMA, "names id, which is int32: no vector"),
        ({"vector__dimensions": "feature:3"}, ("id",), SCHEMA.set(1, pa.field("color", pa.date32())), "use a CAST"),
        ({"vector__dimensions": "feature:3", "partitionKey__enabled": "true"}, ("id",), SCHEMA, "partitionKey.field"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_made_is_named(make_target, options, key, schema, said):
    target = make_target({})
    with pytest.raises(PlanError, match=said):
        target.sink(None, **options).create_target(schema, key)
    assert target.collection not in target.server.client.list_collections()
