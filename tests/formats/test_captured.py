"""What a changed table wants of its target by each behaviour, and rows of old layouts under new columns."""

import numpy as np
import pyarrow as pa
import pytest

from vector_assets.engine.captured import CAPTURED_SCHEMA, Layout, SourceColumn, captured, gathered
from vector_assets.engine.core import KIND, POSITION
from vector_assets.engine.errors import ConfigError, DriftError
from vector_assets.engine.schema import Column, LogicalType
from vector_assets.formats.captured import CapturedDecoder

INT, BIGINT, TEXT = LogicalType("INT"), LogicalType("BIGINT"), LogicalType("VARCHAR")
DECLARED = (Column("id", LogicalType("INT", nullable=False)), Column("n", INT), Column("s", LogicalType("VARCHAR", 9)))
FIRST = {"id": INT, "n": INT, "s": LogicalType("VARCHAR", 9)}


def layout(columns, epoch=0, renames=(), table="d.t", nullable=None):
    found = None
    if columns is not None:
        found = tuple(SourceColumn(name, kind, nullable) for name, kind in columns.items())
    return Layout(table, epoch, found, tuple(renames))


def batch(where, *rows, kinds=None):
    """Records of one layout; without rows the mark that a table was changed."""
    columns = where.columns or ()
    count = len(rows) or 1
    arrays = [pa.array([row[at] for row in rows], each.type.arrow) for at, each in enumerate(columns)] if rows else []
    kept = pa.array(kinds or [0] * len(rows), pa.int8()) if rows else pa.nulls(1, pa.int8())
    value = captured(columns if rows else (), arrays, kept, where)
    return pa.record_batch(
        [value if each.name == "value" else pa.nulls(count, each.type) if each.nullable else
         pa.array(np.zeros(count), each.type) for each in CAPTURED_SCHEMA],
        schema=CAPTURED_SCHEMA.set(1, pa.field("value", value.type)),
    )  # fmt: skip


def raw_of(*batches):
    table = gathered(batches, CAPTURED_SCHEMA)
    return table.append_column(POSITION, pa.array(range(table.num_rows), pa.int64()))


def settle(decoder, raw, refuse=()):
    """The decoder after all it wants was made (or refused), what that was, and the rows."""
    state, told = [], []
    wants = decoder.decode(raw).wants
    for want in wants:
        is_refused = any(word in want.what for word in refuse)
        state.append(want.refusal if is_refused else want.entry)
        if want.entry["op"] != "layout":
            told.append(want.what.partition(": ")[2])
    decoder = decoder.evolved(state)
    decoded = decoder.decode(raw)
    assert decoded.wants == ()
    return decoder, told, decoded


def rows_of(decoded):
    return decoded.rows.drop_columns([KIND, POSITION]).to_pylist()


def names(decoder):
    return [f"{column.name} {column.type}" for column in decoder.columns]


CHANGED = layout({"id": INT, "said": LogicalType("VARCHAR", 9), "x": BIGINT}, 2, [(1, (("s", "said"),))])
RAW = raw_of(batch(layout(FIRST), (1, 1, "a")), batch(CHANGED, (2, "b", 7)))


@pytest.mark.parametrize(
    ("behavior", "columns", "rows"),
    [
        ("evolve", ["id INT NOT NULL", "said VARCHAR(9)", "x BIGINT"],
         [{"id": 1, "said": "a", "x": None}, {"id": 2, "said": "b", "x": 7}]),
        ("lenient", ["id INT NOT NULL", "n INT", "s VARCHAR(9)", "said VARCHAR(9)", "x BIGINT"],
         [{"id": 1, "n": 1, "s": "a", "said": None, "x": None}, {"id": 2, "n": None, "s": None, "said": "b", "x": 7}]),
        ("ignore", ["id INT NOT NULL", "n INT", "s VARCHAR(9)"],
         [{"id": 1, "n": 1, "s": "a"}, {"id": 2, "n": None, "s": None}]),
    ],
)  # fmt: skip
def test_each_behavior_makes_its_own_of_a_change(behavior, columns, rows):
    decoder, _, decoded = settle(CapturedDecoder(DECLARED, behavior), RAW)
    assert names(decoder) == columns
    assert rows_of(decoded) == rows


def test_exception_names_the_record_and_the_change():
    with pytest.raises(DriftError, match=r"column n is gone.*schema\.change\.behavior is exception"):
        CapturedDecoder(DECLARED, "exception").decode(RAW)
    assert CapturedDecoder(DECLARED, "exception").decode(raw_of(batch(layout(FIRST, 3), (1, 1, "a")))).wants == ()


def test_an_unknown_behavior_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="known: exception, evolve, try_evolve, lenient, ignore"):
        CapturedDecoder(DECLARED, "brave")


def test_wants_are_in_the_order_of_time_whatever_order_the_records_are_in():
    late = layout({**FIRST, "x": INT, "y": INT}, 2)
    early = layout({**FIRST, "x": INT}, 1)
    raw = raw_of(batch(late, (2, 2, "b", 3, 4)), batch(early, (1, 1, "a", 9)))
    decoder, told, decoded = settle(CapturedDecoder(DECLARED, "evolve"), raw)
    assert told == ["column x INT is new", "column y INT is new"]
    assert [row["x"] for row in rows_of(decoded)] == [3, 9]
    again = decoder.decode(raw_of(batch(layout(FIRST), (5, 5, "z"))))
    assert again.wants == ()
    assert rows_of(again) == [{"id": 5, "n": 5, "s": "z", "x": None, "y": None}]


def test_a_column_that_came_again_under_its_name_is_another_one():
    without = layout({"id": INT, "n": INT}, 1)
    again = layout(FIRST, 2)
    raw = raw_of(batch(layout(FIRST), (1, 1, "old")), batch(without, (2, 2)), batch(again, (3, 3, "new")))
    _, _, decoded = settle(CapturedDecoder(DECLARED, "evolve"), raw)
    assert [row["s"] for row in rows_of(decoded)] == [None, None, "new"]


@pytest.mark.parametrize("is_marked", [False, True], ids=["with rows", "before the rows"])
def test_names_that_are_exchanged_go_over_a_third_one(is_marked):
    swapped = layout({"id": INT, "s": INT, "n": LogicalType("VARCHAR", 9)}, 1, [(1, (("s", "n"), ("n", "s")))])
    first = batch(layout(FIRST), (1, 1, "a"))
    later = batch(layout({"id": INT, "s": INT, "n": LogicalType("VARCHAR", 9)}, 1), (2, 2, "b"))
    raw = raw_of(first, batch(swapped, (2, 2, "b")))
    if is_marked:
        mark = layout(None, 1, swapped.renames)
        raw = raw_of(first, batch(mark), later)
    decoder, told, decoded = settle(CapturedDecoder(DECLARED, "evolve"), raw)
    assert told == ["column s is called _renaming_2", "column n is called s", "column _renaming_2 is called n"]
    assert names(decoder) == ["id INT NOT NULL", "s INT", "n VARCHAR(9)"]
    assert rows_of(decoded) == [{"id": 1, "s": 1, "n": "a"}, {"id": 2, "s": 2, "n": "b"}]


def test_a_name_that_was_dropped_is_taken():
    taken = layout({"id": INT, "n": LogicalType("VARCHAR", 9)}, 1, [(1, (("s", "n"),))])
    raw = raw_of(batch(layout(FIRST), (1, 1, "a")), batch(taken, (2, "b")))
    decoder, told, decoded = settle(CapturedDecoder(DECLARED, "evolve"), raw)
    assert told == ["column n is gone: n is dropped", "column s is called n"]
    assert names(decoder) == ["id INT NOT NULL", "n VARCHAR(9)"]
    assert [row["n"] for row in rows_of(decoded)] == ["a", "b"]


def test_a_half_made_change_is_made_to_its_end():
    """The ledger notes a change at a time: after any of them the rest is wanted, and nothing twice."""
    swapped = layout({"id": INT, "s": INT, "n": LogicalType("VARCHAR", 9)}, 1, [(1, (("s", "n"), ("n", "s")))])
    raw = raw_of(batch(swapped, (2, 2, "b")))
    decoder = CapturedDecoder(DECLARED, "evolve")
    wants = decoder.decode(raw).wants
    for number in range(len(wants) + 1):
        half = [want.entry for want in wants[:number]]
        rest = decoder.evolved(half).decode(raw).wants
        end = decoder.evolved([*half, *(want.entry for want in rest)])
        assert names(end) == ["id INT NOT NULL", "s INT", "n VARCHAR(9)"]
        assert end.decode(raw).wants == ()


def test_a_refused_change_is_gone_on_without():
    raw = raw_of(batch(layout({"id": INT, "n": TEXT, "s": TEXT, "x": INT}, 1), (1, "17", "a", 1), (2, "many", "b", 2)))
    decoder, _, decoded = settle(CapturedDecoder(DECLARED, "try_evolve"), raw, refuse=("x INT", "n becomes"))
    assert names(decoder) == ["id INT NOT NULL", "n INT", "s STRING"]
    assert rows_of(decoded) == [{"id": 1, "n": 17, "s": "a"}]
    (reject,) = decoded.rejected.to_pylist()
    assert (reject[POSITION], reject["stage"]) == (1, "decode")
    assert "column n is INT" in reject["error"]


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        (INT, BIGINT, "BIGINT"), (BIGINT, INT, "BIGINT"), (INT, TEXT, "STRING"), (TEXT, INT, "STRING"),
        (LogicalType("DECIMAL", 10, 2), LogicalType("DECIMAL", 8, 4), "DECIMAL(12, 4)"),
        (LogicalType("VARCHAR", 9), LogicalType("VARCHAR", 20), "VARCHAR(20)"),
        (LogicalType("DATE"), LogicalType("TIMESTAMP", 3), "TIMESTAMP(3)"),
        (BIGINT, LogicalType("DOUBLE"), "DOUBLE"), (LogicalType("DOUBLE"), BIGINT, "STRING"),
        (LogicalType("BOOLEAN"), LogicalType("TINYINT"), "TINYINT"),
    ],
)  # fmt: skip
def test_a_type_becomes_the_narrowest_that_holds_both(old, new, wanted):
    decoder = CapturedDecoder((Column("id", INT), Column("v", old)), "evolve")
    decoder, _, _ = settle(decoder, raw_of(batch(layout({"id": INT, "v": new}, 1), (1, None))))
    assert str(decoder.columns[1].type) == wanted


def test_a_column_that_may_be_null_by_now_may_be_so_in_the_target():
    declared = (Column("id", INT), Column("n", LogicalType("INT", nullable=False)))
    raw = raw_of(batch(layout({"id": INT, "n": INT}, 1, nullable=True), (1, None)))
    assert names(settle(CapturedDecoder(declared, "evolve"), raw)[0])[1] == "n INT"
    gone = raw_of(batch(layout({"id": INT}, 1), (1,)))
    assert names(settle(CapturedDecoder(declared, "lenient"), gone)[0]) == ["id INT", "n INT"]


def test_of_several_tables_none_takes_a_column_away():
    one = layout({"id": INT, "n": BIGINT}, table="d.a")
    other = layout({"id": INT, "s": TEXT}, table="d.b")
    dropped = layout({"id": INT}, 1, table="d.a")
    raw = raw_of(batch(one, (1, 1)), batch(other, (2, "b")), batch(dropped, (3,)))
    decoder, _, decoded = settle(CapturedDecoder(DECLARED[:2], "evolve", is_merged=True), raw)
    assert names(decoder) == ["id INT NOT NULL", "n BIGINT", "s STRING"]
    assert rows_of(decoded) == [
        {"id": 1, "n": 1, "s": None}, {"id": 2, "n": None, "s": "b"}, {"id": 3, "n": None, "s": None},
    ]  # fmt: skip


def test_kinds_go_along_and_marks_are_no_rows():
    raw = raw_of(batch(layout(FIRST), (1, 1, "a"), (1, 2, "a"), kinds=[1, 2]), batch(layout(None, 1)))
    decoded = CapturedDecoder(DECLARED, "evolve").decode(raw)
    assert decoded.rows.column(KIND).to_pylist() == [1, 2]
    assert decoded.rejected.num_rows == 0
    empty = CAPTURED_SCHEMA.empty_table().append_column(POSITION, pa.array([], pa.int64()))
    assert CapturedDecoder(DECLARED, "evolve").decode(empty).rows.num_rows == 0
