import pyarrow as pa

from vector_assets.engine.core import KIND, POSITION
from vector_assets.engine.dead_letters import DeadLetter, raw_records, splits_of
from vector_assets.engine.metadata import Metadata, attach, is_castable
from vector_assets.engine.schema import Column, LogicalType, Table
from vector_assets.engine.typed import TypedDecoder, from_bytes, to_bytes, typed_schema

TABLE = Table("t", (Column("id", LogicalType("BIGINT")), Column("timestamp", LogicalType("VARCHAR"))))
ROWS = [{"id": 1, "timestamp": "a"}, {"id": None, "timestamp": "b"}]


def records(schema: pa.Schema, values: list[dict]) -> pa.Table:
    rows = [{"value": value, "split": 0, "offset": at} for at, value in enumerate(values)]
    return pa.Table.from_pylist(rows, schema)


def numbered(raw: pa.Table) -> pa.Table:
    return raw.append_column(POSITION, pa.array(range(raw.num_rows), pa.int64()))


def test_a_typed_record_decodes_to_its_own_row_whatever_its_columns_are_called() -> None:
    decoded = TypedDecoder(TABLE).decode(numbered(records(typed_schema(TABLE), ROWS)))
    assert decoded.rows.drop_columns(POSITION).to_pylist() == ROWS
    assert decoded.rejected.num_rows == 0


def test_row_kinds_of_typed_records_are_kept() -> None:
    raw = records(typed_schema(TABLE, has_kinds=True), [{**ROWS[0], KIND: 0}, {**ROWS[1], KIND: 3}])
    rows = TypedDecoder(TABLE).decode(numbered(raw)).rows
    assert rows.column(KIND).to_pylist() == [0, 3]
    assert TypedDecoder(TABLE).decode(numbered(raw.slice(0, 0))).rows.schema == rows.schema
    assert TypedDecoder(TABLE).decode(numbered(raw.slice(1))).rows.column("timestamp").to_pylist() == ["b"]


def test_a_dead_letter_gives_a_typed_record_back() -> None:
    raw = records(typed_schema(TABLE), ROWS)
    letters = [letter(at, value) for at, value in enumerate(to_bytes(raw.column("value")))]
    again = raw_records(letters, typed_schema(TABLE))
    assert again.column("value").to_pylist() == ROWS
    assert splits_of(letters) == ["s/0", "s/1"]
    assert again.column("split").to_pylist() == [0, 1]
    assert from_bytes([None], typed_schema(TABLE).field("value").type).to_pylist() == [None]


def letter(number: int, value: bytes) -> DeadLetter:
    return DeadLetter(
        number, "p", "t", 1, number, f"s/{number}", number, 1, 1, None, value, None, None, "write", "no", "v", "open",
        None, 0,
    )  # fmt: skip


def test_metadata_is_attached_by_the_records_position_and_cast_to_the_columns_type() -> None:
    raw = records(typed_schema(TABLE), [*ROWS, *ROWS])
    key = Metadata(LogicalType("BIGINT"), lambda raw, splits: pa.array([10, 11, 12, 13]))
    rows = pa.table({POSITION: pa.array([3, 1], pa.int64())})
    column = Column("n", LogicalType("INT"), "metadata", metadata_key="offset")
    found = attach(rows, raw, ["s/0"], [(column, key)])
    assert found.column("n").to_pylist() == [13, 11]
    assert found.schema.field("n").type == pa.int32()


def test_a_type_that_no_value_can_have_is_not_castable() -> None:
    assert is_castable(LogicalType("BIGINT"), LogicalType("VARCHAR"))
    assert not is_castable(LogicalType("BIGINT"), LogicalType("ARRAY", children=(LogicalType("INT"),)))
