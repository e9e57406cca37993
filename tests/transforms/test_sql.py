"""The SELECT of a script over a batch: the Arrow path, the DuckDB path, and records that it fails for."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vector_assets.engine.core import KIND, POSITION, REJECT_SCHEMA, Decoded
from vector_assets.engine.errors import FatalError, PlanError
from vector_assets.transforms import duck
from vector_assets.transforms.sql import SqlTransform

INT32 = pa.schema([("n", pa.int32())])
TYPES = {
    "bool": pa.bool_(),
    "tiny": pa.int8(),
    "small": pa.int16(),
    "int": pa.int32(),
    "big": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "text": pa.string(),
    "bytes": pa.binary(),
    "day": pa.date32(),
    "clock": pa.time64("us"),
    "ms": pa.timestamp("ms"),
    "us": pa.timestamp("us"),
    "ns": pa.timestamp("ns"),
    "zoned": pa.timestamp("ms", tz="UTC"),
    "money": pa.decimal128(20, 4),
    "vector": pa.list_(pa.float32()),
    "pair": pa.struct([("a", pa.int32()), ("b", pa.string())]),
}


def batch(first: int = 0, step: int = 1, kinds: list[int] | None = None, **columns: Any) -> pa.Table:
    table = pa.table(columns)
    if kinds is not None:
        table = table.append_column(KIND, pa.array(kinds, pa.int8()))
    return table.append_column(POSITION, pa.array(first + step * np.arange(table.num_rows), pa.int64()))


def sql(expression: str, where: str | None = None, relation: str = "source", output: pa.Schema = INT32) -> SqlTransform:
    return SqlTransform(((expression, output.names[0]),), relation, where, output)


def errors(decoded: Decoded) -> dict[int, str]:
    assert decoded.rejected.schema == REJECT_SCHEMA
    assert set(decoded.rejected["stage"].to_pylist()) <= {"transform"}
    return dict(zip(decoded.rejected[POSITION].to_pylist(), decoded.rejected["error"].to_pylist(), strict=True))


@pytest.mark.parametrize("name", TYPES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_the_arrow_path_gives_what_duckdb_gives(name: str, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.none() | _values(TYPES[name]), max_size=10))
    rows = batch(first=50, step=3, kinds=[i % 4 for i in range(len(values))], c=pa.array(values, TYPES[name]))
    output = pa.schema([("d", TYPES[name])])
    in_arrow, in_duckdb = sql('"c"', output=output), sql('"c"', where="true", output=output)
    fast, slow = in_arrow.apply(rows), in_duckdb.apply(rows)
    assert fast.rows.schema == slow.rows.schema
    assert _shown(fast.rows) == _shown(slow.rows)
    assert fast.rows["d"].combine_chunks().equals(rows["c"].combine_chunks()) or name in {"float", "double"}
    assert (fast.filtered, slow.filtered) == (0, 0)


def _shown(rows: pa.Table) -> str:
    """As text, because NaN is not equal to itself; nanoseconds as integers, pyarrow wants pandas for them."""
    plain = [pa.int64() if pa.types.is_timestamp(kind) else kind for kind in rows.schema.types]
    columns = [column.cast(kind) for column, kind in zip(rows.columns, plain, strict=True)]
    return str(pa.table(columns, names=rows.column_names).to_pylist())


def _values(kind: pa.DataType) -> st.SearchStrategy[Any]:
    simple: dict[pa.DataType, st.SearchStrategy[Any]] = {
        pa.bool_(): st.booleans(),
        pa.float32(): st.floats(width=32),
        pa.float64(): st.floats(),
        pa.string(): st.text(st.characters(codec="utf-8"), max_size=5),
        pa.binary(): st.binary(max_size=5),
        pa.date32(): st.dates(),
        pa.time64("us"): st.times(),
        pa.decimal128(20, 4): st.decimals(-(10**15), 10**15, places=4, allow_nan=False),
    }
    if pa.types.is_integer(kind):
        return st.integers(-(2 ** (kind.bit_width - 1)), 2 ** (kind.bit_width - 1) - 1)
    if pa.types.is_timestamp(kind):
        return st.integers(-(10**11), 10**11).map(lambda number: pa.scalar(number, pa.int64()).cast(kind))
    if pa.types.is_list(kind):
        return st.lists(st.none() | st.floats(width=32, allow_nan=False), max_size=3)
    if pa.types.is_struct(kind):
        return st.fixed_dictionaries({"a": st.none() | st.integers(0, 9), "b": st.none() | st.text("xy", max_size=2)})
    return simple[kind]


@pytest.mark.parametrize("expression", ["n", '"n"', " N ", '"N"', "source.n", '"source"."n"', 'source . "n"'])
def test_a_column_by_any_of_its_names_needs_no_duckdb(expression: str, monkeypatch: pytest.MonkeyPatch) -> None:
    transform = sql(expression)
    monkeypatch.setattr("duckdb.connect", lambda *_, **__: pytest.fail("DuckDB was asked"))
    rows = batch(n=pa.array([1, 2], pa.int32()), other=["a", "b"])
    assert transform.apply(rows).rows.to_pydict() == {"n": [1, 2], POSITION: [0, 1]}


def test_the_arrow_path_copies_nothing() -> None:
    rows = batch(n=pa.array(range(1000), pa.int32()))
    result = sql("n").apply(rows).rows
    assert result["n"].chunk(0).buffers()[1].address == rows["n"].chunk(0).buffers()[1].address


@pytest.mark.parametrize(("word", "kind", "value"), [("NULL", pa.int32(), None), ("true", pa.bool_(), True)])
def test_a_bare_word_that_is_a_value_in_sql_is_not_a_column(word: str, kind: pa.DataType, value: object) -> None:
    rows = batch(**{word: pa.array([5], pa.int32())})
    assert sql(word, output=pa.schema([("n", kind)])).apply(rows).rows["n"].to_pylist() == [value]
    assert sql(f'"{word}"').apply(rows).rows["n"].to_pylist() == [5]


def test_a_bare_word_that_is_a_function_in_sql_is_a_column_where_there_is_one() -> None:
    rows = batch(current_date=pa.array([5], pa.int32()))
    assert sql("current_date").apply(rows).rows["n"].to_pylist() == [5]
    assert sql("current_date", where="true").apply(rows).rows["n"].to_pylist() == [5]


def test_columns_that_differ_in_case_are_told_apart_in_arrow_and_refused_in_duckdb() -> None:
    rows = batch(a=[1], A=[2])
    output = pa.schema([("x", pa.int64()), ("y", pa.int64())])
    exact = SqlTransform((('"A"', "x"), ('"a"', "y")), "source", None, output)
    assert exact.apply(rows).rows.select(["x", "y"]).to_pylist() == [{"x": 2, "y": 1}]
    with pytest.raises(PlanError, match="columns a and A differ only in case"):
        sql("a + 1", output=pa.schema([("x", pa.int64())])).apply(rows)


def test_hidden_columns_are_kept_and_the_order_is_that_of_the_positions() -> None:
    rows = batch(kinds=[0, 1, 2, 3], n=pa.array([1, 2, 3, 4], pa.int32()))
    shuffled = rows.take([2, 0, 3, 1])
    for transform in (sql("n"), sql("n + 0"), sql("n", where="n > 0")):
        result = transform.apply(shuffled).rows
        assert result.to_pydict() == {"n": [1, 2, 3, 4], KIND: [0, 1, 2, 3], POSITION: [0, 1, 2, 3]}
        assert result.schema.types == [pa.int32(), pa.int8(), pa.int64()]


def test_rows_without_kind_stay_without() -> None:
    rows = batch(n=pa.array([1], pa.int32()))
    assert sql("n + 1").apply(rows).rows.column_names == ["n", POSITION]
    keeping = '(SELECT n * 2 AS n, "_kind", "_position" FROM source) AS t'
    assert sql("n", relation=keeping).apply(rows).rows.to_pydict() == {"n": [2], POSITION: [0]}


def test_where_leaves_rows_out_and_counts_them() -> None:
    decoded = sql("n", where="n % 2 = 0").apply(batch(n=pa.array([1, 2, 3, 4, None], pa.int32())))
    assert decoded.rows["n"].to_pylist() == [2, 4]
    assert decoded.filtered == 3


def test_expressions_where_and_subqueries_work_together() -> None:
    relation = "(SELECT upper(color) AS color, price, _kind, _position FROM source) AS t"
    transform = SqlTransform(
        (("CASE WHEN price > 10 THEN 'dear ' ELSE '' END || color", "label"), ("price * 2", "double")),
        relation,
        "color <> 'RED'",
        pa.schema([("label", pa.string()), ("double", pa.int64())]),
    )
    decoded = transform.apply(batch(color=["red", "blue", "green"], price=pa.array([1, 20, 3], pa.int32())))
    assert decoded.rows.drop_columns([POSITION]).to_pylist() == [
        {"label": "dear BLUE", "double": 40},
        {"label": "GREEN", "double": 6},
    ]
    assert decoded.filtered == 1


def test_a_subquery_may_make_several_rows_of_a_record() -> None:
    relation = "(SELECT unnest(parts) AS part, _position FROM source) AS t"
    decoded = sql("part", relation=relation).apply(batch(parts=[[1, 2], [], [3]]))
    assert decoded.rows.to_pydict() == {"n": [1, 2, 3], POSITION: [0, 0, 2]}
    assert decoded.filtered == 1


QUERIES = {
    "try": sql("CAST(t AS INT) + 1"),
    "try in where": sql("1", where="CAST(t AS INT) > -1"),
    "volatile": sql("CAST(t AS INT) + CAST(random() * 0 AS INT)"),
    "computed column": sql("c + 1", relation='(SELECT *, CAST(t AS INT) AS "c" FROM source)'),
    "computed column in where": sql("1", "c >= 0", '(SELECT *, CAST(t AS INT) AS "c" FROM source)'),
    "subquery": sql("c", relation="(SELECT CAST(t AS INT) AS c, _position FROM source) AS s"),
}


@pytest.mark.parametrize("transform", QUERIES.values(), ids=QUERIES.keys())
@settings(max_examples=15, deadline=None)
@given(count=st.integers(1, 3000), data=st.data())
def test_poison_anywhere_is_isolated_exactly(transform: SqlTransform, count: int, data: st.DataObject) -> None:
    poison = data.draw(st.sets(st.integers(0, count - 1), max_size=6))
    rows = batch(first=10, step=2, t=["x" if place in poison else str(place) for place in range(count)])
    decoded = transform.apply(rows)
    assert set(errors(decoded)) == {10 + 2 * place for place in poison}
    assert decoded.rows[POSITION].to_pylist() == [10 + 2 * place for place in range(count) if place not in poison]
    assert decoded.filtered == 0


def test_a_reject_names_the_column_and_what_duckdb_said() -> None:
    transform = SqlTransform(
        (("t", "t"), ("CAST(t AS INT)", "price")),
        "source",
        None,
        pa.schema([("t", pa.string()), ("price", pa.int32())]),
    )
    found = errors(transform.apply(batch(t=["1", "x", None])))
    assert list(found) == [1]
    assert found[1].startswith("transform: column price: Conversion Error: Could not convert string 'x' to INT32")


def test_every_kind_of_failing_value_is_a_reject() -> None:
    rows = batch(t=["1", "2", "0"], n=pa.array([1, 2**31 - 1, 5], pa.int32()))
    assert list(errors(sql("n + 1").apply(rows))) == [1]
    assert list(errors(sql("10 // CAST(t AS INT)").apply(rows))) == [2]
    assert list(errors(sql("year(strptime(CASE t WHEN '2' THEN 'x' ELSE '2024' END, '%Y'))").apply(rows))) == [1]
    assert list(errors(sql("1", where="CAST(t AS INT) // (n - 1) >= 0").apply(rows))) == [0]


def test_a_record_that_where_leaves_out_is_not_asked_for_its_columns() -> None:
    decoded = sql("CAST(t AS INT)", where="t <> 'x'").apply(batch(t=["1", "x", "y"]))
    assert decoded.rows["n"].to_pylist() == [1]
    assert list(errors(decoded)) == [2]
    assert decoded.filtered == 1


def test_a_failing_computed_column_counts_only_where_it_is_used() -> None:
    relation = '(SELECT *, CAST(t AS INT) AS "c", CAST(u AS INT) AS "unused" FROM source)'
    rows = batch(t=["1", "x", "y", "4"], u=["x", "x", "1", "1"])
    decoded = sql('"C"', where="t <> 'y'", relation=relation).apply(rows)
    assert list(errors(decoded)) == [1]
    assert errors(decoded)[1].startswith("transform: column n: Conversion Error: Could not convert string 'x'")
    assert decoded.rows["n"].to_pylist() == [1, 4]
    assert decoded.filtered == 1


def test_thousands_of_failing_computed_columns_cost_one_query(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duck, "_MOST_PROBES", 0)
    relation = '(SELECT *, CAST(t AS INT) AS "c" FROM source)'
    assert len(errors(sql("c", relation=relation).apply(batch(t=["x", "1"] * 2000)))) == 2000


def test_more_failures_than_are_told_in_full_all_name_their_column() -> None:
    found = errors(sql("CAST(t AS INT)").apply(batch(t=["x"] * 50 + ["1"])))
    assert len(found) == 50
    assert all(reason.startswith("transform: column n: ") for reason in found.values())


@pytest.mark.parametrize("where", [None, "true"], ids=["arrow", "duckdb"])
def test_a_number_that_the_target_cannot_hold_is_a_reject_never_a_wrap(where: str | None) -> None:
    rows = batch(n=pa.array([1, 2**31, -(2**31), -(2**31) - 1, None], pa.int64()))
    decoded = sql("n", where=where).apply(rows)
    assert decoded.rows["n"].to_pylist() == [1, -(2**31), None]
    assert errors(decoded) == {
        1: "transform: column n: found 2147483648, wanted int32",
        3: "transform: column n: found -2147483649, wanted int32",
    }
    assert decoded.filtered == 0


@pytest.mark.parametrize("where", [None, "true"], ids=["arrow", "duckdb"])
def test_null_in_a_not_null_column_is_a_reject(where: str | None) -> None:
    output = pa.schema([pa.field("n", pa.int64(), nullable=False)])
    decoded = sql("n", where=where, output=output).apply(batch(n=pa.array([1, None], pa.int32())))
    assert errors(decoded) == {1: "transform: column n: found null, wanted int64 NOT NULL"}
    assert decoded.rows.schema.field("n") == output.field("n")


def test_a_reject_takes_all_rows_of_its_record_along() -> None:
    rows = pa.table({"n": [1, 2**40, 3], KIND: pa.array([1, 2, 0], pa.int8()), POSITION: [4, 4, 5]})
    decoded = sql("n").apply(rows)
    assert decoded.rows.to_pylist() == [{"n": 3, KIND: 0, POSITION: 5}]
    assert list(errors(decoded)) == [4]


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("nope + 1", 'Referenced column "nope" not found'),
        ("nope", 'Referenced column "nope" not found'),
        ("n +", "syntax error"),
        ("no_such_function(n)", "no_such_function does not exist"),
        ("'text'", "column n is string, the target wants int32; add a CAST"),
        ("(SELECT count(*) FROM read_csv('/etc/passwd'))", "file system operations are disabled"),
        ("(SELECT count(*) FROM rows)", "Table with name rows does not exist"),
    ],
)
def test_what_is_wrong_with_the_script_is_a_plan_error(expression: str, message: str) -> None:
    with pytest.raises(PlanError, match=f"transform: .*{message.replace('(', '.').replace(')', '.')}"):
        sql(expression).apply(batch(n=pa.array([1], pa.int32())))


def test_a_bad_script_is_found_without_records() -> None:
    with pytest.raises(PlanError, match="Referenced column"):
        sql("nope").apply(batch(n=pa.array([], pa.int32())))
    empty = sql("n + 1").apply(batch(n=pa.array([], pa.int32())))
    assert empty.rows.schema.names == ["n", POSITION]
    assert empty.rows.num_rows == 0


def test_want_of_memory_stops_the_pipeline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(duck, "_SETTINGS", tuple(text.replace("2GB", "20MB") for text in duck._SETTINGS))
    many = "(SELECT CAST(i AS INT) AS i, _position FROM source, range(1000000) AS r(i) ORDER BY hash(i)) AS t"
    with pytest.raises(FatalError, match="transform: Out of Memory"):
        sql("i", relation=many).apply(batch(n=[1, 2, 3]))
    assert list(tmp_path.iterdir()) == []


def test_too_many_failures_to_bisect_ask_for_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duck, "_MOST_PROBES", 50)
    with pytest.raises(PlanError, match=r"50 queries \(\d+ so far\); the first: transform: Conversion Error"):
        QUERIES["volatile"].apply(batch(t=["x"] * 100))


def test_projections_must_be_the_outputs_columns() -> None:
    with pytest.raises(PlanError, match="the SELECT gives a; wanted b"):
        SqlTransform((("a", "a"),), "source", None, pa.schema([("b", pa.int32())]))
    with pytest.raises(PlanError, match="column _position is reserved"):
        SqlTransform((("a", POSITION),), "source", None, pa.schema([(POSITION, pa.int64())]))


def test_threads_share_a_transform() -> None:
    transform = sql("CAST(t AS INT) * 2", where="t <> '7'")

    def run(number: int) -> tuple[list[int], list[int]]:
        decoded = transform.apply(batch(t=[str(number), "7", "x"]))
        return decoded.rows["n"].to_pylist(), list(errors(decoded))

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(run, range(100, 140))) == [([2 * number], [2]) for number in range(100, 140)]


def test_time_is_utc_whatever_the_machine_says() -> None:
    output = pa.schema([("s", pa.string())])
    rows = batch(moment=pa.array([0], pa.timestamp("us", tz="UTC")))
    assert sql("CAST(moment AS VARCHAR)", output=output).apply(rows).rows["s"].to_pylist() == ["1970-01-01 00:00:00+00"]


CHANGED = pa.table(
    {
        "id": pa.array([1, 2, 3, 4, 5], pa.int64()),
        "n": pa.array([10, 1, None, None, 10], pa.int64()),
        KIND: pa.array([2, 0, 3, 2, 1], pa.int8()),
        POSITION: pa.array([0, 1, 2, 3, 4], pa.int64()),
    }
)
IDS = pa.schema([pa.field("id", pa.int64(), nullable=False), pa.field("n", pa.int64(), nullable=False)])


def test_row_that_deletes_needs_its_key_only() -> None:
    done = SqlTransform((("id", "id"), ("n", "n")), "source", None, IDS, key=("id",)).apply(CHANGED)
    assert done.rows["id"].to_pylist() == [1, 2, 3, 5]
    assert done.rejected["error"].to_pylist() == ["transform: column n: found null, wanted int64 NOT NULL"]
    keyless = SqlTransform((("n", "id"), ("n", "n")), "source", None, IDS, key=("id",)).apply(CHANGED)
    assert keyless.rejected[POSITION].to_pylist() == [2, 3]


@pytest.mark.parametrize("text", ["id", "id + 0"], ids=["column", "expression"])
def test_row_that_replaces_another_deletes_its_key_where_it_does_not_meet_the_condition(text: str) -> None:
    nullable = pa.schema([pa.field("id", pa.int64())])
    done = SqlTransform(((text, "id"),), "source", None, nullable, deletes_unless="n > 5").apply(CHANGED)
    assert done.rows[KIND].to_pylist() == [2, 3, 3, 3, 1]
    assert (done.rows.num_rows, done.filtered, done.rejected.num_rows) == (5, 0, 0)
    assert done.rows.column_names == ["id", KIND, POSITION]


def test_record_whose_condition_fails_is_rejected_and_not_deleted() -> None:
    nullable = pa.schema([pa.field("id", pa.int64())])
    failing = SqlTransform((("id", "id"),), "source", None, nullable, deletes_unless="CAST(n - 300 AS UTINYINT) > 5")
    assert failing.apply(CHANGED).rejected[POSITION].to_pylist() == [0, 1]
