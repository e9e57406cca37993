# ruff: noqa: E501
"""Records of the shapes that the producers document, and what each of them comes to."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from tests.formats.fix_changelog import changelog_decoder, changelog_table, decoded_of, reasons_of, rows_of
from vector_assets.engine.core import KIND, POSITION, Decoded
from vector_assets.engine.errors import ConfigError

D = Decimal
OLD = {"id": 111, "name": "scooter", "weight": 5.18}
NEW = {"id": 111, "name": "scooter", "weight": 5.15}
SOURCE = {
    "connector": "mysql",
    "ts_ms": 1589362330000,
    "db": "inventory",
    "schema": "public",
    "table": "products",
    "pos": 154,
    "gtid": None,
}
MILLIS = datetime(2020, 5, 13, 9, 32, 10, tzinfo=UTC)
BEFORE, AFTER = (111, "scooter", D("5.18")), (111, "scooter", D("5.15"))


def texts(row: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in row.items()}


def debezium(op: str, before: Any, after: Any) -> dict[str, Any]:
    return {"before": before, "after": after, "source": SOURCE, "op": op, "ts_ms": 1589362330000, "transaction": None}


def maxwell(kind: str, data: Any, old: Any = None) -> dict[str, Any]:
    extra = {} if old is None else {"old": old}
    return {
        "database": "test",
        "table": "product",
        "type": kind,
        "ts": 1589362330,
        "xid": 1,
        "commit": True,
        "data": data,
        "primary_key_columns": ["id"],
        **extra,
    }


def canal(
    kind: str, data: Any, old: Any = None, database: str = "inventory", table: str = "products"
) -> dict[str, Any]:
    return {
        "data": data, "database": database, "es": 1589362330000, "id": 9, "isDdl": data is None, "mysqlType": {"id": "INTEGER"},
        "old": old, "pkNames": ["id"], "sql": "", "sqlType": {"id": 4, "name": 12, "weight": 7}, "table": table,
        "ts": 1589362330000, "type": kind,
    }  # fmt: skip


CHANGES = {
    "debezium create": ("debezium-json", [debezium("c", None, NEW)], [(0, "+I", *AFTER)]),
    "debezium snapshot": ("debezium-json", [debezium("r", None, NEW)], [(0, "+I", *AFTER)]),
    "debezium update": ("debezium-json", [debezium("u", OLD, NEW)], [(0, "-U", *BEFORE), (0, "+U", *AFTER)]),
    "debezium delete": ("debezium-json", [debezium("d", OLD, None)], [(0, "-D", *BEFORE)]),
    "debezium delete of a key": ("debezium-json", [debezium("d", {"id": 111}, None)], [(0, "-D", 111, None, None)]),
    "debezium tombstone": ("debezium-json", [debezium("d", OLD, None), None, b""], [(0, "-D", *BEFORE)]),
    "debezium message": ("debezium-json", [{"op": "m", "message": {"prefix": "x"}}], []),
    "maxwell insert": ("maxwell-json", [maxwell("insert", NEW)], [(0, "+I", *AFTER)]),
    "maxwell bootstrap": ("maxwell-json", [maxwell("bootstrap-start", {}), maxwell("bootstrap-insert", NEW), maxwell("bootstrap-complete", {})], [(1, "+I", *AFTER)]),
    "maxwell update": ("maxwell-json", [maxwell("update", NEW, {"weight": 5.18})], [(0, "-U", *BEFORE), (0, "+U", *AFTER)]),
    "maxwell update of a null": ("maxwell-json", [maxwell("update", NEW, {"weight": None})], [(0, "-U", 111, "scooter", None), (0, "+U", *AFTER)]),
    "maxwell update to a null": ("maxwell-json", [maxwell("update", {**NEW, "name": None}, {"name": "x"})], [(0, "-U", 111, "x", D("5.15")), (0, "+U", 111, None, D("5.15"))]),
    "maxwell update of nothing": ("maxwell-json", [maxwell("update", NEW, {})], [(0, "-U", *AFTER), (0, "+U", *AFTER)]),
    "maxwell update under an escaped name": (
        "maxwell-json",
        [b'{"type":"update","data":{"id":1,"name":"old"},"\\u006fld":{"name":null}}'],
        [(0, "-U", 1, None, None), (0, "+U", 1, "old", None)],
    ),
    "maxwell move of a key": ("maxwell-json", [maxwell("update", NEW, {"id": 7})], [(0, "-U", 7, "scooter", D("5.15")), (0, "+U", *AFTER)]),
    "maxwell delete": ("maxwell-json", [maxwell("delete", OLD)], [(0, "-D", *BEFORE)]),
    "maxwell tables": ("maxwell-json", [{"type": "table-create", "database": "test", "table": "t", "def": {}}, {"type": "table-alter", "old": {}, "def": {}}, {"type": "table-drop"}], []),
    "canal insert": ("canal-json", [canal("INSERT", [texts(NEW), {"id": "2"}])], [(0, "+I", *AFTER), (0, "+I", 2, None, None)]),
    "canal update": ("canal-json", [canal("UPDATE", [texts(NEW)], [{"weight": "5.18"}])], [(0, "-U", *BEFORE), (0, "+U", *AFTER)]),
    "canal updates": (
        "canal-json",
        [canal("UPDATE", [texts(NEW), {"id": "2", "name": "b"}], [{"weight": None}, {"name": None}])],
        [(0, "-U", 111, "scooter", None), (0, "+U", *AFTER), (0, "-U", 2, None, None), (0, "+U", 2, "b", None)],
    ),
    "canal nulls of one record only": (
        "canal-json",
        [canal("UPDATE", [texts(NEW)], [{"name": "x"}]), canal("INSERT", [texts(NEW)]), canal("UPDATE", [texts(NEW)] * 2, [{"name": None}, {}])],
        [(0, "-U", 111, "x", D("5.15")), (0, "+U", *AFTER), (1, "+I", *AFTER), (2, "-U", 111, None, D("5.15")), (2, "+U", *AFTER), (2, "-U", *AFTER), (2, "+U", *AFTER)],
    ),
    "canal delete": ("canal-json", [canal("DELETE", [texts(OLD)])], [(0, "-D", *BEFORE)]),
    "canal numbers": ("canal-json", [canal("INSERT", [NEW])], [(0, "+I", *AFTER)]),
    "canal tables": ("canal-json", [canal(kind, None) for kind in ("CREATE", "ALTER", "ERASE", "RENAME", "QUERY")], []),
    "canal nothing": ("canal-json", [canal("INSERT", []), None], []),
    "changelog insert": ("changelog-json", [{"data": NEW, "op": "+I"}], [(0, "+I", *AFTER)]),
    "changelog": (
        "changelog-json",
        [{"data": NEW, "op": "+I"}, {"data": NEW, "op": "-U"}, {"data": OLD, "op": "+U"}, {"data": {"id": 111}, "op": "-D"}, None],
        [(0, "+I", *AFTER), (1, "-U", *AFTER), (2, "+U", *BEFORE), (3, "-D", 111, None, None)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CHANGES)
def test_record_gives_its_rows_with_their_kinds(case: str) -> None:
    name, records, wanted = CHANGES[case]
    decoded = decoded_of(changelog_decoder(name), *records)
    assert reasons_of(decoded) == {}
    assert rows_of(decoded) == wanted
    assert decoded.filtered == len(records) - len({row[0] for row in wanted})


WRONG = {
    "debezium update without before": ("debezium-json", debezium("u", None, NEW), "found nothing in an update, wanted the row before it; a table in Postgres has to have REPLICA IDENTITY FULL"),
    "debezium delete without before": ("debezium-json", debezium("d", None, None), "found nothing in a delete, wanted the row before it"),
    "debezium insert without after": ("debezium-json", debezium("c", OLD, None), "column after: found nothing, wanted the row after"),
    "debezium update without after": ("debezium-json", debezium("u", OLD, None), "column after: found nothing"),
    "debezium truncation": ("debezium-json", debezium("t", None, None), "a truncation does not say which rows are gone"),
    "debezium unknown op": ("debezium-json", debezium("x", None, NEW), "column op: found 'x', wanted one of c, r, u, d, m"),
    "debezium with a schema": ("debezium-json", {"schema": {}, "payload": debezium("c", None, NEW)}, "column op: found nothing, wanted one of c, r, u, d, m; 'debezium-json.schema-include' is false"),
    "debezium value": ("debezium-json", debezium("c", None, {**NEW, "id": "x"}), "column after.id: found 'x', wanted INT"),
    "debezium value before": ("debezium-json", debezium("u", {"id": 1.5}, NEW), "column before.id: found 1.5, wanted INT"),
    "debezium without a key": ("debezium-json", debezium("d", {"name": "x"}, None), "column id: found nothing, wanted INT NOT NULL"),
    "maxwell unknown type": ("maxwell-json", maxwell("upsert", NEW), "column type: found 'upsert', wanted one of insert, update, delete"),
    "maxwell update without old": ("maxwell-json", maxwell("update", NEW), "column old: found nothing in an update"),
    "maxwell without data": ("maxwell-json", maxwell("insert", None), "column data: found nothing, wanted a row"),
    "maxwell value": ("maxwell-json", maxwell("update", NEW, {"weight": "?"}), "column old.weight: found '?', wanted DECIMAL(5, 2)"),
    "canal truncation": ("canal-json", canal("TRUNCATE", None), "column type: found 'TRUNCATE', wanted one of INSERT, UPDATE, DELETE"),
    "canal unknown type": ("canal-json", canal("MERGE", [texts(NEW)]), "column type: found 'MERGE', wanted one of INSERT, UPDATE, DELETE"),
    "canal without data": ("canal-json", canal("INSERT", None), "column data: found nothing, wanted an array of rows"),
    "canal null row": ("canal-json", canal("INSERT", [texts(NEW), None]), "column data: an element is null"),
    "canal update without old": ("canal-json", canal("UPDATE", [texts(NEW)]), "column old: found nothing in an update, wanted as many as in data (1)"),
    "canal update with fewer old": ("canal-json", canal("UPDATE", [texts(NEW)] * 2, [{}]), "column old: found 1 rows in an update, wanted as many as in data (2)"),
    "canal value": ("canal-json", canal("INSERT", [texts(NEW), {"id": "2", "weight": "heavy"}]), "column data[].weight: found 'heavy', wanted DECIMAL(5, 2)"),
    "canal old value": ("canal-json", canal("UPDATE", [texts(NEW)], [{"id": "x"}]), "column old[].id: found 'x', wanted INT"),
    "canal object": ("canal-json", canal("INSERT", texts(NEW)), "column data: found an object"),
    "changelog unknown op": ("changelog-json", {"data": NEW, "op": "INSERT"}, "column op: found 'INSERT', wanted one of +I, -U, +U, -D"),
    "changelog without data": ("changelog-json", {"data": None, "op": "+I"}, "column data: found nothing, wanted a row"),
    "changelog insert without its key": ("changelog-json", {"data": {"name": "x"}, "op": "+I"}, "column id: found nothing, wanted INT NOT NULL"),
    **{f"{name} that is {what}": (name, value, "") for name in ("debezium-json", "maxwell-json", "canal-json", "changelog-json") for what, value in {"cut": b'{"op": "c', "no object": b"[1]", "empty": b"{}", "two": b"{}{}", "null": b"null"}.items()},
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("lenient", ["false", "true"], ids=["strict", "lenient"])
def test_record_that_is_no_change_is_rejected_alone(case: str, lenient: str) -> None:
    name, record, reason = WRONG[case]
    good = {kind: records for kind, records, wanted in CHANGES.values() if len(wanted) == len(records) == 1}[name]
    decoded = decoded_of(changelog_decoder(name, ignore_parse_errors=lenient), *good, record, *good)
    if lenient == "true" and " value" in case:
        assert decoded.nulled == 1
        return
    assert set(reasons_of(decoded)) == {1}
    assert reasons_of(decoded)[1].startswith(f"{name}: ")
    assert reason in reasons_of(decoded)[1] or lenient == "true"
    assert {row[0] for row in rows_of(decoded)} == {0, 2}


def test_payload_beside_a_schema_is_read_where_the_option_says_so() -> None:
    decoder = changelog_decoder("debezium-json", schema_include="true")
    decoded = decoded_of(
        decoder, {"schema": {"type": "struct"}, "payload": debezium("u", OLD, NEW)}, debezium("c", None, NEW)
    )
    assert rows_of(decoded) == [(0, "-U", *BEFORE), (0, "+U", *AFTER)]
    assert reasons_of(decoded)[1].endswith("'debezium-json.schema-include' is true")


LTZ = "TIMESTAMP_LTZ(3)"
METADATA = {
    "debezium-json": (
        debezium("u", OLD, NEW),
        {"ingestion-timestamp": LTZ, "source.timestamp": LTZ, "source.database": "STRING", "source.schema": "STRING", "source.table": "STRING"},
        [MILLIS, MILLIS, "inventory", "public", "products"],
    ),
    "maxwell-json": (
        maxwell("update", NEW, {"weight": 5.18}),
        {"database": "STRING", "table": "STRING", "primary-key-columns": "ARRAY<STRING>", "ingestion-timestamp": LTZ},
        ["test", "product", ["id"], MILLIS],
    ),
    "canal-json": (
        canal("UPDATE", [texts(NEW)], [{"weight": "5.18"}]),
        {"database": "STRING", "table": "STRING", "sql-type": "MAP<STRING, INT>", "pk-names": "ARRAY<STRING>", "ingestion-timestamp": LTZ, "event-timestamp": LTZ},
        ["inventory", "products", [("id", 4), ("name", 12), ("weight", 7)], ["id"], MILLIS, MILLIS],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", METADATA)
def test_every_row_of_a_record_has_its_metadata(name: str) -> None:
    record, keys, wanted = METADATA[name]
    decoder = changelog_decoder(name, changelog_table(metadata=keys))
    assert rows_of(decoded_of(decoder, record)) == [(0, "-U", *BEFORE, *wanted), (0, "+U", *AFTER, *wanted)]


@pytest.mark.parametrize("name", METADATA)
def test_metadata_that_a_record_lacks_is_null(name: str) -> None:
    record, keys, wanted = METADATA[name]
    kept = {member: record[member] for member in ("before", "after", "op", "data", "old", "type") if member in record}
    decoder = changelog_decoder(name, changelog_table(metadata=keys))
    rows = rows_of(decoded_of(decoder, kept))
    assert [row[5:] for row in rows] == [(None,) * len(wanted)] * 2


def test_all_properties_of_a_debezium_source_are_texts() -> None:
    keys = {"source.properties": "MAP<STRING, STRING>", "source.timestamp": LTZ, "source.table": "STRING"}
    decoder = changelog_decoder("debezium-json", changelog_table(metadata=keys))
    ((*_, properties, at, table),) = rows_of(decoded_of(decoder, debezium("c", None, NEW)))
    assert dict(properties) == {name: None if value is None else str(value) for name, value in SOURCE.items()}
    assert (at, table) == (MILLIS, "products")


def test_debezium_schema_is_metadata_where_there_is_one() -> None:
    table = changelog_table(metadata={"schema": "STRING"})
    decoder = changelog_decoder("debezium-json", table, schema_include="true")
    ((*_, schema),) = rows_of(decoded_of(decoder, {"schema": {"type": "struct"}, "payload": debezium("c", None, NEW)}))
    assert schema == '{"type":"struct"}'
    with pytest.raises(ConfigError, match=r"column schema wants 'debezium-json.schema-include' = 'true'"):
        changelog_decoder("debezium-json", table)


def test_unknown_metadata_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"column opp: unknown METADATA key 'opp'; known: op, database, table, prim"):
        changelog_decoder("maxwell-json", changelog_table(metadata={"opp": "STRING"}))


@pytest.mark.parametrize("name", METADATA)
def test_what_a_row_does_is_metadata_of_every_changelog(name: str) -> None:
    record, _, _ = METADATA[name]
    decoder = changelog_decoder(name, changelog_table(metadata={"op": "STRING"}))
    assert rows_of(decoded_of(decoder, record)) == [(0, "-U", *BEFORE, "-U"), (0, "+U", *AFTER, "+U")]


def test_what_a_row_does_is_metadata_of_changelog_json() -> None:
    decoder = changelog_decoder("changelog-json", changelog_table(metadata={"op": "STRING"}))
    records = [{"data": NEW, "op": op} for op in ("+I", "-D")]
    assert [row[-1] for row in rows_of(decoded_of(decoder, *records))] == ["+I", "-D"]


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"database__include": "inv.*"}, [0, 2]),
        ({"table__include": "products"}, [0, 1]),
        ({"table__include": "product"}, []),
        ({"database__include": "inventory|x", "table__include": "products"}, [0]),
    ],
    ids=["database", "table", "the whole name", "both"],
)
def test_records_of_other_tables_are_passed_over_unread(options: dict[str, str], kept: list[int]) -> None:
    records = [
        canal("INSERT", [texts(NEW)]),
        canal("INSERT", [texts(NEW)], database="shop"),
        canal("INSERT", [texts(NEW)], table="users"),
        canal("INSERT", [{"id": "no number"}], database="y", table="y"),
        {**canal("INSERT", [texts(NEW)]), "database": None, "table": None},
    ]
    decoded = decoded_of(changelog_decoder("canal-json", **options), *records)
    assert [row[0] for row in rows_of(decoded)] == kept
    assert list(reasons_of(decoded)) == [4]
    assert "found nothing" in reasons_of(decoded)[4]
    assert decoded.filtered == 4 - len(kept)


def test_filter_that_is_no_pattern_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"canal-json.table.include.*no regular expression"):
        changelog_decoder("canal-json", table__include="(")


@pytest.mark.parametrize("name", ["debezium-json", "maxwell-json", "canal-json", "changelog-json"])
def test_times_are_spelled_as_the_option_says(name: str) -> None:
    table = changelog_table((("id", "INT"), ("at", "TIMESTAMP(3)")), key=())
    row = {"id": "1", "at": "2026-03-01T12:00:00.5"}
    record = {
        "debezium-json": debezium("c", None, row), "maxwell-json": maxwell("insert", row),
        "canal-json": canal("INSERT", [row]), "changelog-json": {"data": row, "op": "+I"},
    }[name]  # fmt: skip
    decoded = decoded_of(changelog_decoder(name, table, timestamp_format__standard="ISO-8601"), record)
    assert rows_of(decoded) == [(0, "+I", 1, datetime.fromisoformat("2026-03-01 12:00:00.5"))]
    assert "column" in reasons_of(decoded_of(changelog_decoder(name, table), record))[0]


@pytest.mark.parametrize("name", ["debezium-json", "maxwell-json", "canal-json", "changelog-json"])
def test_nested_columns_are_read(name: str) -> None:
    table = changelog_table((("id", "INT"), ("vec", "ARRAY<FLOAT>"), ("r", "ROW<a INT, b STRING>")))
    new = {"id": 1, "vec": [0.5, None], "r": {"a": 1, "b": "x"}}
    old = {"vec": None, "r": {"a": 2, "b": "y"}}
    record = {
        "debezium-json": debezium("u", {**new, **old}, new), "maxwell-json": maxwell("update", new, old),
        "canal-json": canal("UPDATE", [new], [old]), "changelog-json": {"data": new, "op": "+U"},
    }[name]  # fmt: skip
    rows = rows_of(decoded_of(changelog_decoder(name, table), record))
    assert rows[-1] == (0, "+U", 1, [0.5, None], {"a": 1, "b": "x"})
    if name != "changelog-json":
        assert rows[0] == (0, "-U", 1, None, {"a": 2, "b": "y"})


def test_value_that_does_not_fit_is_null_and_counted_if_the_option_says_so() -> None:
    table = changelog_table((("id", "INT"), ("weight", "INT")), key=())
    for name, record in {
        "debezium-json": debezium("c", None, {"id": 1, "weight": "x"}),
        "maxwell-json": maxwell("insert", {"id": 1, "weight": "x"}),
        "canal-json": canal("INSERT", [{"id": "1", "weight": "x"}]),
        "changelog-json": {"data": {"id": 1, "weight": "x"}, "op": "+I"},
    }.items():
        decoded: Decoded = decoded_of(changelog_decoder(name, table, ignore_parse_errors="true"), record)
        assert rows_of(decoded) == [(0, "+I", 1, None)]
        assert decoded.nulled == 1


def test_hidden_columns_are_never_null() -> None:
    for name in ("debezium-json", "maxwell-json", "canal-json", "changelog-json"):
        schema = decoded_of(changelog_decoder(name)).rows.schema
        assert not schema.field(KIND).nullable
        assert not schema.field(POSITION).nullable
