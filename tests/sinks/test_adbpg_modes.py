"""Every writemode with every conflictmode and exceptionmode: what lands, what is counted, what stops."""

import itertools
import random

import pyarrow as pa
import pytest

from tests.sinks.contract import SCHEMA, Feed, car, rows_of
from vector_assets.engine.core import KIND, POSITION, Batch, Merge, RowKind
from vector_assets.engine.errors import BudgetError, FatalError, PlanError

pytestmark = pytest.mark.service

MODES = [
    (write, conflict)
    for write, conflict in itertools.product((0, 1, 2), ("ignore", "strict", "update", "upsert"))
    if write != 2 or conflict in {"update", "upsert"}
]
INSERT_OR_COPY = pytest.mark.parametrize("writemode", [0, 1], ids=["insert", "copy"])
CHECKED = """CREATE TABLE car_info (
    id bigint PRIMARY KEY, color varchar(10) CHECK (color <> 'rust'), feature float4[])"""


def colors(cars):
    return dict(cars.rows("SELECT id, color FROM car_info"))


@pytest.mark.parametrize(("writemode", "conflictmode"), MODES, ids=[f"{w}-{c}" for w, c in MODES])
def test_a_key_that_exists_meets_the_conflict_mode(cars, writemode, conflictmode):
    sink = cars.sink(writemode=writemode, conflictmode=conflictmode)
    feed = Feed(sink)
    feed.apply(car(1, "first"), car(2, "first"))
    if conflictmode == "strict":
        with pytest.raises(FatalError, match=r"key \(id\) exists .* 1 rows, at positions 0 of the batch"):
            feed.apply(car(2, "second"), car(3, "second"))
        assert colors(cars) == {1: "first", 2: "first"}
        return
    receipt = feed.apply(car(2, "second"), car(3, "second"))
    kept = "first" if conflictmode == "ignore" else "second"
    assert colors(cars) == {1: "first", 2: kept, 3: "second"}
    dropped = 1 if conflictmode == "ignore" else 0
    assert (receipt.counts.written, receipt.counts.conflicts) == (2 - dropped, dropped)


@pytest.mark.parametrize("conflictmode", [None, "update", "upsert"], ids=str)
def test_upserts_are_what_writemode_2_does_whatever_conflictmode_says(cars, conflictmode):
    given = {"conflictmode": conflictmode} if conflictmode else {}
    sink = cars.sink(writemode=2, **given)
    assert sink.merge is Merge.LAST
    feed = Feed(sink)
    feed.apply(car(1, "first"))
    feed.apply(car(1, "second"))
    assert colors(cars) == {1: "second"}


@INSERT_OR_COPY
def test_the_first_row_of_a_key_is_kept_inside_a_batch_too(cars, writemode):
    feed = Feed(cars.sink(writemode=writemode, batchsize=2))
    for _ in range(2):
        receipt = feed.apply(*(car(number % 5, f"row {number}") for number in range(20)))
    assert colors(cars) == {number: f"row {number}" for number in range(5)}
    assert (receipt.counts.written, receipt.counts.conflicts) == (0, 20)


@INSERT_OR_COPY
def test_a_key_repeated_inside_a_batch_stops_a_strict_one(cars, writemode):
    feed = Feed(cars.sink(writemode=writemode, conflictmode="strict"))
    with pytest.raises(FatalError, match="2 rows, at positions 2, 3 of the batch") as caught:
        feed.apply(car(7001), car(7002), car(7001), car(7001))
    assert "700" not in str(caught.value)
    assert colors(cars) == {}


@INSERT_OR_COPY
@pytest.mark.parametrize("conflictmode", ["ignore", "strict"])
def test_a_table_without_a_key_takes_every_row(make_cars, writemode, conflictmode):
    cars = make_cars("CREATE TABLE car_info (id int, color text, feature float4[])")
    sink = cars.sink(writemode=writemode, conflictmode=conflictmode)
    assert sink.merge is Merge.APPEND
    Feed(sink).apply(car(1), car(1), car(1))
    assert cars.value("SELECT count(*) FROM car_info") == 3


@pytest.mark.parametrize("conflictmode", ["update", "upsert"])
def test_updates_need_a_key(make_cars, conflictmode):
    cars = make_cars("CREATE TABLE car_info (id int, color text, feature float4[])")
    with pytest.raises(PlanError, match="no primary key or unique index"):
        cars.sink(conflictmode=conflictmode)


def test_after_a_conflict_the_next_batches_expect_more_and_then_copy_again(cars):
    sink = cars.sink()
    feed = Feed(sink)
    feed.apply(car(0), car(1))
    feed.apply(car(1), car(2))
    assert sink._expecting_conflicts == 32
    for number in range(3, 35):
        feed.apply(car(number))
    assert sink._expecting_conflicts == 0
    assert len(colors(cars)) == 35


@INSERT_OR_COPY
@pytest.mark.parametrize("conflictmode", ["ignore", "strict", "update"])
def test_rows_that_the_target_refuses_are_rejected_by_position_and_the_rest_lands(make_cars, writemode, conflictmode):
    cars = make_cars(CHECKED)
    feed = Feed(cars.sink(writemode=writemode, conflictmode=conflictmode, batchsize=10))
    bad = {3, 17, 18, 40}
    receipt = feed.apply(*(car(number, "rust" if number in bad else "red") for number in range(50)))
    assert set(colors(cars)) == set(range(50)) - bad
    assert (receipt.counts.written, receipt.counts.refused, receipt.counts.conflicts) == (46, 4, 0)
    rejected = receipt.rejected.to_pylist()
    assert [row[POSITION] for row in rejected] == sorted(bad)
    assert {row["stage"] for row in rejected} == {"write"}
    for row in rejected:
        assert row["error"].startswith("23514 ")
        assert "car_info_color_check" in row["error"]
        assert "rust" not in row["error"]


@INSERT_OR_COPY
def test_the_second_row_of_a_key_lands_when_the_first_is_refused(make_cars, writemode):
    cars = make_cars(CHECKED)
    feed = Feed(cars.sink(writemode=writemode))
    feed.apply(car(9))
    for first in (1, 11):
        receipt = feed.apply(car(first, "rust"), car(first, "red"), car(first, "blue"), car(9, "blue"))
        assert colors(cars)[first] == "red"
        assert (receipt.counts.written, receipt.counts.refused, receipt.counts.conflicts) == (1, 1, 2)


@INSERT_OR_COPY
def test_another_unique_index_makes_a_row_an_exception_not_a_conflict(make_cars, writemode):
    cars = make_cars("CREATE TABLE car_info (id int PRIMARY KEY, color text UNIQUE, feature float4[])")
    receipt = Feed(cars.sink(writemode=writemode)).apply(car(1, "red"), car(2, "red"), car(3, "blue"))
    assert colors(cars) == {1: "red", 3: "blue"}
    (rejected,) = receipt.rejected.to_pylist()
    assert rejected["error"].startswith("23505 ")
    assert receipt.counts.conflicts == 0


@INSERT_OR_COPY
@pytest.mark.parametrize(
    ("ddl", "color", "words"),
    [
        ("CREATE TABLE car_info (id int PRIMARY KEY, color varchar(5), feature text)", "yellow", "color: 6 characters"),
        ("CREATE TABLE car_info (id int PRIMARY KEY, color text NOT NULL, feature text)", None, "color: is null"),
        (
            "CREATE TABLE colors (name text PRIMARY KEY); INSERT INTO colors VALUES ('red');"
            "CREATE TABLE car_info (id int PRIMARY KEY, color text REFERENCES colors DEFERRABLE INITIALLY DEFERRED,"
            " feature text)",
            "yellow",
            "23503 ",
        ),
        (
            "CREATE TYPE hue AS ENUM ('red'); CREATE TABLE car_info (id int PRIMARY KEY, color hue, feature text)",
            "yellow",
            "22P02 column color",
        ),
        (
            "CREATE DOMAIN hue AS text CHECK (VALUE <> 'yellow');"
            "CREATE TABLE car_info (id int PRIMARY KEY, color hue, feature text)",
            "yellow",
            "23514 ",
        ),
        ("CREATE TABLE car_info (id int PRIMARY KEY, color jsonb, feature text)", "yellow", "22P02 column color"),
        ("CREATE TABLE car_info (id int PRIMARY KEY, color text, feature text)", "a\0b", "color: holds a zero byte"),
        ("CREATE TABLE car_info (id int PRIMARY KEY, color uuid, feature text)", "yellow", "color: is not a UUID"),
        (
            """CREATE TABLE car_info (id int PRIMARY KEY, color text, feature text);
            CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN IF NEW.color = 'yellow' THEN RAISE 'no %', NEW.color; END IF; RETURN NEW; END $$;
            CREATE TRIGGER refuse BEFORE INSERT ON car_info FOR EACH ROW EXECUTE FUNCTION refuse()""",
            "yellow",
            "P0001 refused by function refuse",
        ),
        (
            "CREATE TABLE car_info (id int PRIMARY KEY, color text, feature text) PARTITION BY LIST (color);"
            "CREATE TABLE car_red PARTITION OF car_info FOR VALUES IN ('red')",
            "yellow",
            "23514 ",
        ),
    ],
    ids=["too-long", "null", "deferred-foreign-key", "enum", "domain", "json", "zero-byte", "uuid", "trigger",
         "no-partition"],
)  # fmt: skip
def test_whatever_refuses_a_row_it_is_rejected_without_its_value(make_cars, writemode, ddl, color, words):
    good = {"jsonb": "{}", "uuid": "0b5ac3ad-f7c4-4a93-9d1c-cf6d4e3a3f0e"}
    right = next((value for name, value in good.items() if f"color {name}" in ddl), "red")
    if "PARTITION BY" in ddl:
        ddl = ddl.replace("id int PRIMARY KEY", "id int")
    cars = make_cars(ddl)
    feed = Feed(cars.sink(writemode=writemode))
    staged = feed.stage(rows_of(car(1, right), car(2, color), car(3, right)))
    receipt = feed.sink.commit(staged)
    (rejected,) = staged.rejected.to_pylist() + receipt.rejected.to_pylist()
    assert rejected[POSITION] == 1
    if writemode == 1 or "22P02" not in words:
        assert words in rejected["error"]
    assert "yellow" not in rejected["error"]
    assert set(colors(cars)) == {1, 3}


def test_an_index_entry_that_is_too_long_is_the_rows_fault(make_cars):
    cars = make_cars(
        "CREATE TABLE car_info (id int PRIMARY KEY, color text, feature text); CREATE INDEX ON car_info (color)"
    )
    noise = random.Random(1).randbytes(9000).hex()
    receipt = Feed(cars.sink()).apply(car(1), car(2, noise), car(3))
    (rejected,) = receipt.rejected.to_pylist()
    assert rejected["error"].startswith("54000 ")
    assert set(colors(cars)) == {1, 3}


@INSERT_OR_COPY
def test_the_first_refused_row_stops_a_batch_under_strict_exceptions(make_cars, writemode):
    cars = make_cars(CHECKED)
    feed = Feed(cars.sink(writemode=writemode, exceptionmode="strict"))
    with pytest.raises(FatalError, match=r"exceptionmode=strict: the row at position 2 .*23514"):
        feed.apply(car(1), car(2), car(3, "rust"), car(4))
    with pytest.raises(FatalError, match=r"exceptionmode=strict: the row at position 1 .*column feature"):
        Feed(feed.sink).stage(rows_of(car(1), car(2, feature="{x}")))
    assert colors(cars) == {}


@INSERT_OR_COPY
def test_more_refused_rows_than_the_budget_stop_the_batch_before_anything_is_committed(make_cars, writemode):
    cars = make_cars(CHECKED)
    feed = Feed(cars.sink(writemode=writemode))
    rows = [car(1), car(2, "rust"), car(3, "ultramarine"), car(4, "rust")]
    with pytest.raises(BudgetError, match="23514"):
        feed.apply(*rows, limit=2)
    with pytest.raises(BudgetError, match="color: 11 characters"):
        Feed(feed.sink).apply(*rows, limit=0)
    assert colors(cars) == {}
    receipt = Feed(feed.sink).apply(*rows, limit=3)
    assert receipt.counts.refused == 2
    assert colors(cars) == {1: "red"}


def test_one_poison_row_in_a_thousand_is_isolated(make_cars):
    cars = make_cars(CHECKED)
    feed = Feed(cars.sink(batchsize=3000))
    receipt = feed.apply(*(car(number, "rust" if number % 1000 == 7 else "red") for number in range(7000)))
    assert receipt.rejected.column(POSITION).to_pylist() == [7 + 1000 * number for number in range(7)]
    assert len(colors(cars)) == 6993


def test_a_copy_line_that_lies_rejects_nothing_good(make_cars, monkeypatch):
    monkeypatch.setattr("vector_assets.sinks.adbpg_write.copy_line", lambda _: 2)
    cars = make_cars(CHECKED)
    receipt = Feed(cars.sink()).apply(*(car(number, "rust" if number == 5 else "red") for number in range(9)))
    assert receipt.rejected.column(POSITION).to_pylist() == [5]
    assert set(colors(cars)) == set(range(9)) - {5}


@pytest.mark.parametrize("conflictmode", ["ignore", "strict"])
@pytest.mark.parametrize("kind", [RowKind.UPDATE_AFTER, RowKind.DELETE], ids=str)
def test_updates_and_deletes_are_refused_where_the_first_row_wins(cars, conflictmode, kind):
    sink = cars.sink(conflictmode=conflictmode)
    rows = rows_of(car(1)).append_column(KIND, pa.array([kind.value], pa.int8()))
    with pytest.raises(PlanError, match=f"conflictmode={conflictmode} takes inserts only"):
        sink.stage(Batch(rows), Feed(sink).token(1))


@pytest.mark.parametrize("batchsize", [1, 3, 1000])
@pytest.mark.parametrize("writemode", [0, 1, 2], ids=["insert", "copy", "upsert"])
def test_rows_arrive_whatever_the_flush_size(cars, writemode, batchsize):
    sink = cars.sink(writemode=writemode, batchsize=batchsize)
    assert sink.wire.flush_rows == batchsize
    Feed(sink).apply(*(car(number) for number in range(10)))
    assert set(colors(cars)) == set(range(10))


def test_an_insert_never_grows_beyond_its_byte_limit(cars, monkeypatch):
    monkeypatch.setattr("vector_assets.sinks.adbpg_write._FLUSH_BYTES", 400)
    Feed(cars.sink(writemode=0)).apply(*(car(number) for number in range(20)))
    assert set(colors(cars)) == set(range(20))


def test_conflicts_are_known_by_their_columns_in_a_partition_too(make_cars):
    cars = make_cars(
        "CREATE TABLE car_info (id int, color text, feature text, PRIMARY KEY (id, color)) PARTITION BY LIST (color);"
        "CREATE TABLE car_red PARTITION OF car_info FOR VALUES IN ('red')"
    )
    feed = Feed(cars.sink())
    feed.apply(car(1), car(2))
    receipt = feed.apply(car(2), car(3))
    assert (receipt.counts.written, receipt.counts.conflicts, receipt.counts.refused) == (1, 1, 0)


def test_keys_that_only_the_database_thinks_equal_are_conflicts(make_cars):
    # blanks at the end of a char(n) do not count
    cars = make_cars("CREATE TABLE car_info (id int, color char(10) PRIMARY KEY, feature text)")
    feed = Feed(cars.sink())
    feed.apply(car(1, "red"), car(2, "red "))
    receipt = feed.apply(car(3, "red  "), car(4, "blue"), car(5, "blue "))
    assert dict(cars.rows("SELECT trim(color), id FROM car_info")) == {"red": 1, "blue": 4}
    assert (receipt.counts.written, receipt.counts.conflicts) == (1, 2)


def test_keys_are_compared_under_the_collation_of_their_column(make_cars):
    cars = make_cars('CREATE TABLE car_info (id int, color text COLLATE "POSIX" PRIMARY KEY, feature text)')
    feed = Feed(cars.sink())
    for _ in range(2):
        receipt = feed.apply(car(1, "red"), car(2, "red"), car(3, "blue"))
    assert (receipt.counts.written, receipt.counts.conflicts) == (0, 3)


def test_included_columns_are_no_part_of_the_key(make_cars):
    cars = make_cars("CREATE TABLE car_info (id int, color text, feature text)")
    cars.execute("CREATE UNIQUE INDEX ON car_info (id) INCLUDE (color)")
    feed = Feed(cars.sink())
    feed.apply(car(1))
    receipt = feed.apply(car(1, "blue"), car(2))
    assert (receipt.counts.written, receipt.counts.conflicts, receipt.counts.refused) == (1, 1, 0)


def test_a_delete_that_something_else_forbids_is_rejected_and_the_rest_goes(cars):
    feed = Feed(cars.sink(conflictmode="update"))
    feed.apply(*(car(number) for number in range(9)))
    cars.execute("CREATE TABLE owners (car bigint REFERENCES car_info); INSERT INTO owners VALUES (3), (5)")
    receipt = feed.apply(car(20), deletes=(1, 2, 3, 4, 5, 99))
    assert set(colors(cars)) == {0, 3, 5, 6, 7, 8, 20}
    assert (receipt.counts.written, receipt.counts.deleted, receipt.counts.refused) == (1, 4, 2)
    assert receipt.rejected.column(POSITION).to_pylist() == [3, 5]
    with pytest.raises(BudgetError):
        feed.apply(deletes=(3, 5), limit=1)


def test_null_keys_never_conflict(make_cars):
    cars = make_cars("CREATE TABLE car_info (id int UNIQUE, color text, feature text)")
    feed = Feed(cars.sink(SCHEMA))
    for _ in range(2):
        feed.apply(car(1), (None, "red", "x"), (None, "red", "x"))
    assert cars.value("SELECT count(*) FROM car_info") == 5


def test_a_null_key_cannot_be_updated(make_cars):
    cars = make_cars("CREATE TABLE car_info (id int UNIQUE, color text, feature text)")
    feed = Feed(cars.sink(SCHEMA, conflictmode="update"))
    staged = feed.stage(rows_of((None, "red", "x"), car(1)))
    assert "id: is null, and it is part of the key" in staged.rejected.to_pylist()[0]["error"]
