"""Tables of a script from Python, over the seed's own tables and real services."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import pandas as pd
import pyarrow as pa
import pytest

from tests.api.conftest import car
from tests.declare.seeds import flink_step, seed
from vector_assets import api
from vector_assets.declare import flink_sql
from vector_assets.engine import env
from vector_assets.engine.core import KIND, Position
from vector_assets.engine.errors import (
    BudgetError,
    ConfigError,
    FatalError,
    PlanError,
    TargetReplacedError,
    TransientError,
)
from vector_assets.engine.run import Runner
from vector_assets.engine.session import Books, Session
from vector_assets.sinks.adbpg import AdbPgSink

pytestmark = pytest.mark.service
COLUMNS = ["id", "market_time", "color", "price", "feature"]


@pytest.fixture
def cars(postgres, database):
    """Rows of the seed's target table."""

    def rows(columns="id, color, price"):
        with postgres.connect(database) as connection:
            return connection.execute(f"SELECT {columns} FROM vector_test.car_info ORDER BY id").fetchall()

    return rows


def table_of(ids, **columns):
    count = len(ids)
    known = {
        "id": pa.array(ids, pa.int32()),
        "market_time": pa.nulls(count, pa.timestamp("us")),
        "color": pa.array(["red"] * count),
        "price": pa.array(ids, pa.int32()),
        "feature": pa.array(["{" + ",".join(["1"] * 10) + "}"] * count),
    }
    return pa.table({**known, **columns})


def test_a_source_gives_its_rows_its_rejects_and_where_it_stands(kafka, topic, script):
    kafka.produce(topic, [*map(car, range(5)), b"not a car", *map(car, range(5, 9))])
    with script.source("vector_kafka") as source:
        first, second = source.batches(max_rows=6)
        assert first.rows.schema == source.schema
        assert first.rows.column_names == COLUMNS
        assert first.rows.column("id").to_pylist() == [0, 1, 2, 3, 4]
        assert second.rows.column("price").to_pylist() == [5, 6, 7, 8]
        (reject,) = first.rejected.to_pylist()
        assert (reject["value"], reject["offset"], reject["stage"]) == (b"not a car", 5, "decode")
        assert reject["split"].startswith("vector_ingest@")
        assert "csv" in reject["error"]
        assert second.rejected.num_rows == 0
        assert (first.counts.records, first.counts.rejected, first.counts.rows) == (6, 1, 5)
        assert first.span.short() == "0:0-6"
        # a position is JSON, and another process goes on from there
        kept: Position = json.loads(json.dumps(first.position))
        assert [batch.rows for batch in source.batches(start=kept)] == [second.rows]
        assert list(source.batches(start=second.position)) == []
        assert list(source.batches("latest")) == []
    with script.source("vector_kafka") as again:
        (whole,) = again.batches("earliest")
        assert pa.table(whole) == whole.rows
        assert whole.rows.num_rows == 9
        (part,) = again.batches("0:7", "0:9")
        assert part.rows.column("id").to_pylist() == [6, 7]


def test_without_an_end_it_follows_until_it_is_stopped(kafka, topic, script):
    kafka.produce(topic, [car(1)])
    with script.source("vector_kafka") as source:
        batches = source.batches(follow=True)
        assert next(batches).rows.num_rows == 1
        late = threading.Timer(0.3, kafka.produce, (topic, [car(2)]))
        late.start()
        assert next(batches).rows.column("id").to_pylist() == [2]
        late.join()
        stop = threading.Timer(0.3, source.stop)
        stop.start()
        assert list(batches) == []
        stop.join()


def test_computed_and_metadata_columns_are_as_in_a_pipeline(kafka):
    topic = kafka.create_topic(2)
    kafka.produce(topic, [b'{"id": 4}', b'{"id": 5}'], partition=[0, 1], timestamps=1_700_000_000_000)
    script = api.loads(f"""
        CREATE TABLE s (
          id INT, twice AS id * 2, `partition` INT METADATA, at TIMESTAMP_LTZ(3) METADATA FROM 'timestamp'
        ) WITH (
          'connector' = 'kafka', 'topic' = '{topic}', 'format' = 'json', 'scan.startup.mode' = 'earliest-offset',
          'properties.bootstrap.servers' = '{kafka.bootstrap_servers}')""")
    with script.source("s") as source:
        (batch,) = source.batches()
    rows = batch.rows.to_pylist()
    assert [(row["id"], row["twice"], row["partition"]) for row in rows] == [(4, 8, 0), (5, 10, 1)]
    assert rows[0]["at"].timestamp() == 1_700_000_000
    assert KIND not in batch.rows.column_names
    # the other splits of a place stand at their ends
    with script.source("s") as source:
        assert [batch.rows.column("id").to_pylist() for batch in source.batches("1:0")] == [[5]]


def test_only_a_changelog_has_row_kinds_and_a_sink_takes_them(kafka, postgres):
    topic = kafka.create_topic()
    changes = [
        {"op": "c", "before": None, "after": {"id": 1, "name": "a"}},
        {"op": "c", "before": None, "after": {"id": 2, "name": "b"}},
        {"op": "u", "before": {"id": 1, "name": "a"}, "after": {"id": 1, "name": "z"}},
        {"op": "d", "before": {"id": 2, "name": "b"}, "after": None},
    ]
    kafka.produce(topic, [json.dumps(change) for change in changes])
    database = postgres.create_database()
    with postgres.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE public.names (id int PRIMARY KEY, name text)")
        connection.execute("INSERT INTO public.names VALUES (2, 'old'), (3, 'stays')")
    script = api.loads(
        f"""
        CREATE TABLE changes (id INT, name STRING) WITH ('connector' = 'kafka', 'topic' = '{topic}',
          'format' = 'debezium-json', 'scan.startup.mode' = 'earliest-offset',
          'properties.bootstrap.servers' = '{kafka.bootstrap_servers}');
        CREATE TABLE names (id INT PRIMARY KEY NOT ENFORCED, name STRING) WITH ('connector' = 'adbpg',
          'url' = 'jdbc:postgresql://{postgres.host}:{postgres.port}/{database}', 'tablename' = 'names',
          'username' = '{postgres.user}', 'password' = '${{secret_values.word}}', 'conflictmode' = 'upsert');""",
        secrets={"word": postgres.password},
    )
    with script.source("changes") as source, script.sink("names") as sink:
        (batch,) = source.batches()
        assert batch.rows.column(KIND).to_pylist() == [0, 0, 1, 2, 3]
        written = sink.write(batch, "changes")
        assert (written.counts.written, written.counts.deleted, written.counts.compacted) == (1, 1, 3)
        kinds = pa.table({"id": [3, 4], "name": [None, "new"], KIND: ["-D", "+U"]})
        assert sink.write(kinds).counts.deleted == 1
        with pytest.raises(PlanError, match=r"no row kind; known: 0 to 3, \+I"):
            sink.write(kinds.set_column(2, KIND, pa.array(["+X", "+I"])))
    with postgres.connect(database) as connection:
        assert connection.execute("SELECT * FROM names ORDER BY id").fetchall() == [(1, "z"), (4, "new")]


def test_the_same_name_twice_lands_its_rows_once(script, cars, postgres, database):
    with script.sink("vector_ingest") as sink:
        first = sink.write(table_of([1, 2]), "orders")
        assert (first.was_there, first.parts, first.counts.written) == (False, 1, 2)
        assert sink.target.guarantee == "exactly-once"
    with postgres.connect(database, autocommit=True) as connection:
        connection.execute("DELETE FROM vector_test.car_info WHERE id = 2")
    with script.sink("vector_ingest") as sink:
        again = sink.write(table_of([1, 2]), batch="orders")
        assert (again.was_there, again.counts) == (True, first.counts)
        assert cars() == [(1, "red", 1)]
        # another name is another write, and what is forgotten may be written again
        assert sink.write(table_of([3]), "more").counts.written == 1
        sink.forget("orders")
        assert sink.write(table_of([1, 2]), "orders").counts.written == 1
    assert [row[0] for row in cars()] == [1, 2, 3]


@pytest.fixture
def keyless(postgres):
    """A table without a key, where whatever is applied twice is there twice: its script, and its rows."""
    database = postgres.create_database()
    with postgres.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE public.orders (n int)")
    script = api.loads(f"""
        CREATE TABLE orders (n INT) WITH ('connector' = 'adbpg', 'tablename' = 'orders',
          'url' = 'jdbc:postgresql://{postgres.host}:{postgres.port}/{database}',
          'username' = '{postgres.user}', 'password' = '{postgres.password}')""")

    def rows():
        with postgres.connect(database) as connection:
            return [row[0] for row in connection.execute("SELECT n FROM orders ORDER BY n")]

    return script, rows


def test_a_commit_whose_answer_is_lost_is_found_and_not_done_again(keyless, monkeypatch):
    script, rows = keyless
    commit = AdbPgSink.commit
    answers = iter([False, True, True])

    def lost(sink, staged):
        receipt = commit(sink, staged)
        if not next(answers):
            raise TransientError("the connection was lost")
        return receipt

    monkeypatch.setattr(AdbPgSink, "commit", lost)
    with script.sink("orders") as sink:
        written = sink.write(pa.table({"n": range(5)}), "orders", rows_per_part=3)
    assert (written.was_there, written.parts, written.counts.written) == (False, 2, 5)
    assert rows() == list(range(5))


def test_two_writers_of_one_name_land_its_rows_once(keyless):
    script, rows = keyless
    start = threading.Barrier(2)

    def write(_):
        with script.sink("orders") as sink:
            assert sink.target.guarantee == "exactly-once"
            start.wait(30)
            return sink.write(pa.table({"n": range(500)}), "orders", rows_per_part=100)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(write, range(2))
    assert first.counts == second.counts
    assert rows() == list(range(500))


def test_large_input_goes_in_parts_and_goes_on_after_a_failure(script, cars):
    bad = table_of(range(25), color=pa.array(["red"] * 13 + ["a colour with too many letters"] + ["red"] * 11))
    with script.sink("vector_ingest") as sink:
        with pytest.raises(BudgetError, match=r"part 2 of big was written; parts up to 1 are in the target|may lose"):
            sink.write(bad.to_reader(max_chunksize=7), "big", rows_per_part=10, error_budget="0")
        assert [row[0] for row in cars()] == list(range(10))
        written = sink.write(bad.to_reader(max_chunksize=3), "big", rows_per_part=10)
        assert (written.parts, written.was_there) == (3, False)
        assert (written.counts.records, written.counts.written, written.counts.refused) == (25, 24, 1)
        (reject,) = written.rejected.to_pylist()
        assert (reject["_row"], reject["id"], reject["_stage"]) == (13, 13, "write")
        assert "characters" in reject["_error"]
        again = sink.write(bad, "big", rows_per_part=10)
        assert (again.was_there, again.counts.written, again.rejected) == (True, 24, written.rejected)
        # parts of another size, or other rows, would leave some out
        with pytest.raises(FatalError, match="under the name 'big' before, but not with rows 0-20 as part 1"):
            sink.write(bad, "big", rows_per_part=20)
        with pytest.raises(FatalError, match="not with rows 10-12 as part 2"):
            sink.write(bad.slice(0, 12), "big", rows_per_part=10)
    assert [row[0] for row in cars()] == [n for n in range(25) if n != 13]


def test_a_row_that_cannot_be_cast_is_returned(script, cars):
    rows = table_of([1, 2], price=pa.array([1, 3_000_000_000]))
    with script.sink("vector_ingest") as sink:
        written = sink.write(rows)
        assert (written.counts.rejected, written.counts.written) == (1, 1)
        (reject,) = written.rejected.to_pylist()
        assert (reject["_stage"], reject["price"]) == ("transform", 3_000_000_000)
        assert "column price: found 3000000000" in reject["_error"]
        with pytest.raises(BudgetError, match=r"1 of 2 rows are rejected, the error budget is 0;.*column price"):
            sink.write(rows, error_budget="0")
    assert cars("id") == [(1,)]


def test_data_frames_batches_and_readers_are_written_by_column_name(script, cars):
    frame = pd.DataFrame({"price": [7, 8], "id": [1, 2], "color": pd.Categorical(["red", "red"])}, index=[5, 6])
    frame["market_time"] = pd.Timestamp("2026-03-01 12:00:00")
    frame["feature"] = [None, "{" + ",".join(["2"] * 10) + "}"]
    with script.sink("vector_ingest") as sink:
        assert sink.write(frame).counts.written == 2
        assert sink.write(table_of([3]).to_batches()[0]).counts.written == 1
        assert sink.write(table_of([4, 5]).to_reader()).counts.written == 2
        empty = sink.write(table_of([]), "nothing")
        assert (empty.parts, empty.counts.written, empty.rejected.num_rows) == (1, 0, 0)
        assert sink.write(table_of([]), "nothing").was_there
        with pytest.raises(ConfigError, match="rows are given as list, want a pyarrow Table"):
            sink.write([{"id": 1}])
    assert cars()[:2] == [(1, "red", 7), (2, "red", 8)]
    assert [row[0] for row in cars()] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.drop_columns("color"), r"column color \(string\) is missing; given: id, market_time"),
        (lambda t: t.append_column("colour", t["color"]), r"no column colour \(did you mean 'color'\?\)"),
        (lambda t: t.append_column("id", t["id"]), "column id is given 2 times"),
        (
            lambda t: t.set_column(0, "id", pa.array(["one"])),
            "column id is given as string, which is not converted to int32; cast it before",
        ),
        (
            lambda t: t.append_column(KIND, pa.array([3])),
            r"table vector_ingest: the records hold updates or deletes, .* takes inserts only",
        ),
    ],
    ids=["missing", "unknown", "twice", "uncastable", "delete"],
)
def test_columns_that_do_not_fit_are_named(script, cars, change, words):
    with script.sink("vector_ingest") as sink, pytest.raises(PlanError, match=words):
        sink.write(change(table_of([1])))
    assert cars() == []


def test_a_replaced_target_is_not_taken_for_the_one_that_was_written_to(script, cars, postgres, database):
    with script.sink("vector_ingest") as sink:
        sink.write(table_of([1]), "orders")
    with postgres.connect(database, autocommit=True) as connection:
        connection.execute("ALTER TABLE vector_test.car_info RENAME TO old")
        connection.execute("CREATE TABLE vector_test.car_info (LIKE vector_test.old INCLUDING ALL)")
    with script.sink("vector_ingest") as sink:
        with pytest.raises(TargetReplacedError, match="is a new table"):
            sink.write(table_of([1]), "orders")
        sink.forget("orders")
        assert sink.write(table_of([1]), "orders").counts.written == 1
    assert cars("id") == [(1,)]


def test_a_pipeline_on_the_same_target_does_not_mind_what_python_wrote(tmp_path, kafka, topic, seed_text, script, cars):
    kafka.produce(topic, [car(1), car(2)])
    (pipeline,) = flink_sql.compile_script(seed_text, "car_info.sql")
    with script.sink("vector_ingest") as sink, env.overridden(VECTOR_ASSETS_HOME=str(tmp_path)):
        sink.write(table_of([10]), "car_info")
        with Session(pipeline, Books.open()) as session:
            assert [outcome.batch.counts.written for outcome in Runner(session).catch_up()] == [2]
            assert sink.write(table_of([11]), "after").counts.written == 1
            assert session.ledger.newest_seq(pipeline.name, pipeline.target) == 1
            assert session.sink.newest_seq(pipeline.name) == 1
            kafka.produce(topic, [car(3)])
            assert [outcome.batch.seq for outcome in Runner(session).catch_up()] == [2]
    assert [row[0] for row in cars()] == [1, 2, 3, 10, 11]


def test_a_collection_of_milvus_takes_named_writes_and_deletes(milvus):
    name = milvus.create({"id": ("INT64", {}), "v": ("FLOAT_VECTOR", {"dim": 2})})
    script = api.loads(f"""
        CREATE TABLE vectors (id BIGINT PRIMARY KEY NOT ENFORCED, v ARRAY<FLOAT>) WITH ('connector' = 'milvus',
          'endpoint' = '{milvus.host}', 'port' = '{milvus.port}', 'collectionName' = '{name}')""")
    rows = pa.table({"id": [1, 2, 3], "v": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]})
    with script.sink("vectors") as sink:
        assert sink.target.guarantee == "effectively-once"
        first = sink.write(rows, "vectors", rows_per_part=2)
        assert (first.parts, first.counts.written, first.was_there) == (2, 3, False)
        milvus.client.delete(name, ids=[2])
        assert sink.write(rows, "vectors", rows_per_part=2).was_there
        with pytest.raises(FatalError, match="not with rows 0-3 as part 1"):
            sink.write(rows, "vectors")
        assert sink.write(pa.table({"id": [3], "v": [None], KIND: ["-D"]})).counts.deleted == 1
        wrong = sink.write(pa.table({"id": [4], "v": [[1.0]]}), "wrong")
        assert "_error" in wrong.rejected.column_names
        assert wrong.counts.refused == 1
    assert [row["id"] for row in milvus.rows(name)] == [1]


def test_a_bounded_stream_of_generated_rows_needs_no_service():
    script = api.loads("""
        CREATE TABLE s (n BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '25', 'fields.n.kind' = 'sequence',
          'fields.n.start' = '1', 'fields.n.end' = '25');
        CREATE TABLE t (n BIGINT) WITH ('connector' = 'blackhole')""")
    with script.source("s") as source, script.sink("t") as sink:
        sizes = [sink.write(batch).counts.written for batch in source.batches(max_rows=10)]
        assert sizes == [10, 10, 5]
        assert [batch.rows.num_rows for batch in islice(source.batches("20"), 2)] == [5]


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (lambda s: s.source("vector_kafkas"), "table vector_kafkas is not declared .did you mean 'vector_kafka'"),
        (lambda s: s.source("vector_ingest"), "'adbpg', which cannot be a source; connectors that can: .*kafka"),
        (lambda s: s.sink("vector_kafka"), "'kafka', which cannot be a sink"),
        (lambda s: s.sink("vector_ingest"), "placeholder <your_instance_url> is left over"),
    ],
    ids=["unknown", "no source", "no sink", "placeholder"],
)
def test_a_table_that_cannot_be_used_is_named_with_its_place(use, words):
    text = "\n".join(flink_step(seed(0))).replace("<your_broker_list>", "127.0.0.1:1")
    script = api.loads(text, "seed.sql")
    assert set(script.tables) == {"vector_ingest", "vector_kafka"}
    with pytest.raises(ConfigError, match=words) as raised:
        use(script)
    assert "seed.sql" in str(raised.value)


def test_only_the_table_that_is_used_needs_its_secrets(tmp_path):
    file = tmp_path / "two.sql"
    file.write_text("""
        CREATE TABLE s (n BIGINT) WITH ('connector' = 'datagen', 'number-of-rows' = '1');
        CREATE TABLE t (n BIGINT) WITH ('connector' = 'adbpg', 'url' = 'jdbc:postgresql://127.0.0.1:1/x',
          'tablename' = 't', 'username' = 'me', 'password' = '${secret_values.none_of_mine}');
        INSERT INTO t SELECT n FROM s""")
    script = api.load(file)
    with script.source("s") as source:
        assert sum(batch.rows.num_rows for batch in source.batches()) == 1
    with pytest.raises(ConfigError, match=r"two\.sql:.*'none_of_mine' is not set"):
        script.sink("t")
    with pytest.raises(ConfigError, match="not a Flink SQL script"):
        api.load(tmp_path / "two.yaml")
    with pytest.raises(ConfigError, match="declares no table"):
        api.loads("SET 'pipeline.name' = 'x'")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"batch": ""}, "want a name of 1 to 200 printable"),
        ({"batch": "a\nb"}, "printable"),
        ({"rows_per_part": 0}, "want 1 or more"),
        ({"error_budget": "much"}, "error-budget"),
    ],
    ids=["no name", "unprintable", "part", "budget"],
)
def test_wrong_arguments_are_refused(arguments, words):
    script = api.loads("CREATE TABLE t (id INT) WITH ('connector' = 'blackhole')")
    with script.sink("t") as sink, pytest.raises(ConfigError, match=words):
        sink.write(pa.table({"id": [1]}), **arguments)
