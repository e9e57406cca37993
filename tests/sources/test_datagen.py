import itertools

import pyarrow as pa
import pytest

from tests.declare.seeds import seed, statements
from tests.sources.reading import NO_LIMIT, drain, read
from vector_assets.declare import compile_script
from vector_assets.engine.archive import Archive
from vector_assets.engine.core import POSITION, BatchLimit
from vector_assets.engine.errors import ConfigError
from vector_assets.engine.ledger import Ledger
from vector_assets.engine.run import Runner
from vector_assets.engine.session import Books, Session

SINK = "CREATE TABLE nowhere ({columns}) WITH ('connector' = '{connector}');\nINSERT INTO nowhere SELECT * FROM gen;"


def script(columns: str, options: str = "", connector: str = "blackhole") -> str:
    gen = f"CREATE TABLE gen ({columns}) WITH ('connector' = 'datagen'{options});\n"
    return gen + SINK.format(columns=columns, connector=connector)


def source_of(columns: str, options: str = ""):
    (pipeline,) = compile_script(script(columns, options), "gen.sql")
    return pipeline.open_source()


def rows_of(source) -> pa.Table:
    tables, _ = drain(source, source.start())
    return pa.concat_tables([pa.Table.from_arrays(t["value"].flatten(), names=_names(t)) for t in tables])


def _names(table: pa.Table) -> list[str]:
    kind = table.schema.field("value").type
    return [kind.field(at).name for at in range(kind.num_fields)]


def option(field: str, **values: object) -> str:
    return "".join(f", 'fields.{field}.{name.replace('_', '-')}' = '{value}'" for name, value in values.items())


def test_a_sequence_counts_and_ends_the_table() -> None:
    source = source_of("id BIGINT, n STRING", option("id", kind="sequence", start=5, end=104) + option("n", length=3))
    rows = rows_of(source)
    assert rows["id"].to_pylist() == list(range(5, 105))
    assert {len(text) for text in rows["n"].to_pylist()} == {3}
    assert source.plan({"datagen/0": {"offset": 100, "at": 0}}, NO_LIMIT) is None


EVERY = {
    "BOOLEAN": lambda v: v in {True, False},
    "TINYINT": lambda v: -128 <= v <= 127,
    "INT": lambda v: -(2**31) <= v < 2**31,
    "BIGINT": lambda v: -(2**63) <= v < 2**63,
    "FLOAT": lambda v: v >= 0,
    "DOUBLE": lambda v: v >= 0,
    "DECIMAL(30, 3)": lambda v: 0 <= v < 10**27,
    "CHAR(5)": lambda v: len(v) == 5,
    "VARCHAR(7)": lambda v: len(v) == 7,
    "STRING": lambda v: len(v) == 100 and set(v) <= set("0123456789abcdef"),
    "BINARY(3)": lambda v: len(v) == 3,
    "BYTES": lambda v: len(v) == 100,
    "DATE": lambda v: v.year >= 2026,
    "TIME": lambda v: v.hour < 24,
    "TIMESTAMP(3)": lambda v: v.year >= 2026,
    "TIMESTAMP_LTZ(6)": lambda v: v.tzinfo is not None,
    "ARRAY<FLOAT>": lambda v: len(v) == 3,
    "MAP<STRING, INT>": lambda v: len(v) == 3,
    "ROW<q INT, z ARRAY<STRING>>": lambda v: len(v["z"]) == 3 and isinstance(v["q"], int),
}


@pytest.mark.parametrize("kind", EVERY)
def test_random_values_fit_their_type_and_differ(kind: str) -> None:
    values = rows_of(source_of(f"x {kind}", ", 'number-of-rows' = '300'"))["x"].to_pylist()
    assert len(values) == 300
    assert all(EVERY[kind](value) for value in values)
    if kind not in {"BOOLEAN", "TINYINT", "DATE", "TIME", "TIMESTAMP(3)", "TIMESTAMP_LTZ(6)"}:
        assert len({str(value) for value in values}) == 300


@pytest.mark.parametrize(
    ("kind", "options", "holds"),
    [
        ("INT", {"min": -3, "max": 3}, lambda v: set(v) == set(range(-3, 4))),
        ("BIGINT", {"min": 2**62, "max": 2**63 - 1}, lambda v: min(v) >= 2**62),
        ("DOUBLE", {"min": -1, "max": 1}, lambda v: -1 <= min(v) < -0.9 < 0.9 < max(v) <= 1),
        ("DECIMAL(5, 2)", {"min": 1, "max": 2}, lambda v: all(1 <= each <= 2 for each in v)),
        ("STRING", {"length": 9, "var_len": "true"}, lambda v: {len(each) for each in v} == set(range(1, 10))),
        ("STRING", {"kind": "sequence", "start": 1, "end": 1000}, lambda v: v[:3] == ["1", "2", "3"]),
        ("DECIMAL(5, 2)", {"kind": "sequence", "start": 1, "end": 900}, lambda v: len(v) == 900),
        ("ARRAY<FLOAT>", {"length": 8, "element.min": 0, "element.max": 1}, lambda v: {len(e) for e in v} == {8}),
        ("TIMESTAMP(3)", {"max_past": "1 h"}, lambda v: (max(v) - min(v)).seconds > 3000),
        ("INT", {"null_rate": 0.5}, lambda v: 350 < v.count(None) < 650),
    ],
    ids=lambda x: str(x) if not callable(x) else "",
)
def test_an_option_of_a_field_is_honoured(kind, options, holds) -> None:
    values = rows_of(source_of(f"x {kind}", ", 'number-of-rows' = '1000'" + option("x", **options)))["x"].to_pylist()
    assert holds(values)


def test_the_same_row_number_always_gives_the_same_row() -> None:
    options = ", 'number-of-rows' = '500'"
    once = rows_of(source_of("a INT, b STRING, c ARRAY<DOUBLE>", options))
    source = source_of("a INT, b STRING, c ARRAY<DOUBLE>", options)
    pieces, _ = drain(source, source.start(), BatchLimit(7, 1 << 30))
    assert [row for piece in pieces for row in piece["value"].to_pylist()] == once.to_pylist()
    columns = [once["a"].to_pylist(), once["b"].to_pylist()]
    assert len(set(map(str, itertools.chain(*columns)))) > 990


def test_a_byte_limit_ends_a_batch_early_and_the_rest_follows() -> None:
    source = source_of("a STRING", ", 'number-of-rows' = '100'")
    limit = BatchLimit(100, 2000)
    table, span = read(source, source.plan(source.start(), limit), limit)
    assert 1 <= table.num_rows < 30
    rest, _ = drain(source, span.end)
    assert table.num_rows + sum(each.num_rows for each in rest) == 100


def test_a_run_over_an_unbounded_table_ends_at_its_stated_rows() -> None:
    source = source_of("a INT", ", 'rows-per-second' = '1000', 'vector-assets.drain.rows' = '2500'")
    frontier = source.frontier()
    assert source.lag(source.start(), frontier) == 2500
    limit = BatchLimit(10_000, 1 << 30, frontier)
    tables, position = drain(source, source.start(), limit)
    assert [table.num_rows for table in tables] == [1000, 1000, 500]
    again = BatchLimit(10_000, 1 << 30, source.frontier())
    assert sum(table.num_rows for table in drain(source, position, again)[0]) == 2500


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ("id INT", option("idd", min=1), "unknown option 'fields.idd.min'"),
        ("id INT", option("id", length=1), "unknown option 'fields.id.length'"),
        ("id INT", option("id", kind="serial"), "random or sequence"),
        ("id INT", option("id", kind="sequence", start=1), "fields.id.end"),
        ("id TINYINT", option("id", max=200), "-128 to 127"),
        ("id INT", option("id", min=5, max=4), "at least the minimum"),
        ("s CHAR(3)", option("s", length=4), "says the length already"),
        ("s VARCHAR(3)", option("s", length=4), "1 to 3"),
        ("b BOOLEAN", option("b", kind="sequence", start=1, end=2), "numbers or strings"),
        ("id INT", ", 'rows-per-second' = '0'", "rows-per-second"),
        ("id INT", ", 'format' = 'csv'", "unknown option 'format'"),
    ],
    ids=lambda x: x if isinstance(x, str) and " " not in x else None,
)
def test_an_option_that_does_not_fit_is_refused_at_its_place(columns, options, message) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        compile_script(script(columns, options), "gen.sql")
    assert error.value.place is not None
    assert error.value.place.line == 1


def test_options_without_effect_are_reported() -> None:
    text = script("id INT", ", 'number-of-rows' = '1', 'scan.parallelism' = '2'")
    (pipeline,) = compile_script(text, "gen.sql")
    assert any("scan.parallelism" in report for report in pipeline.reports)


def run(text: str, folder) -> list:
    (pipeline,) = compile_script(text, "gen.sql")
    books = Books(Ledger(folder / "ledger.db"), Archive(folder / "archive"))
    with Session(pipeline, books) as session:
        outcomes = list(Runner(session).catch_up())
    books.close()
    return outcomes


def test_print_shows_every_row_once_and_the_second_run_nothing(tmp_path, capsys) -> None:
    options = ", 'number-of-rows' = '3'" + option("id", kind="sequence", start=1, end=3) + option("n", length=2)
    text = script("id INT, n STRING, v ARRAY<INT>", options + option("v", length=1, null_rate=1), "print")
    outcomes = run(text, tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == ["+I[1", "+I[2", "+I[3"]
    assert lines[0].endswith("null]")
    assert sum(outcome.batch.counts.written for outcome in outcomes) == 3
    assert run(text, tmp_path) == []


def test_typed_rows_are_replayed_from_the_archive(tmp_path) -> None:
    text = script("id INT, v ARRAY<FLOAT>", ", 'number-of-rows' = '1000'")
    run(text, tmp_path)
    (pipeline,) = compile_script(text, "gen.sql")
    books = Books(Ledger(tmp_path / "ledger.db"), Archive(tmp_path / "archive"))
    with Session(pipeline, books) as session:
        outcomes = list(Runner(session).replay())
    assert sum(outcome.batch.counts.records for outcome in outcomes) == 1000
    raw = books.archive.read(outcomes[0].batch.archive)
    assert raw.schema == pipeline.raw_schema
    books.close()


def test_the_seeds_datagen_table_compiles_as_written() -> None:
    (gen,) = [s for s in statements(seed(1)) if "'datagen'" in s]
    sink = "CREATE TABLE out (id BIGINT, name STRING, age INT) WITH ('connector' = 'print');"
    (pipeline,) = compile_script(f"{gen}\n{sink}\nINSERT INTO out SELECT * FROM gen;", "seed.sql")
    rows = rows_of(pipeline.open_source())
    assert rows["id"].to_pylist() == [1, 2, 3]
    assert POSITION not in rows.column_names
