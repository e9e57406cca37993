"""Changes as the producers of changelog formats write them, by json.dumps: for benchmarks and for property tests.

A change is a pair of rows, before and after; an insert has no row before it, a delete none after it.
"""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import orjson

Row = dict[str, Any]
Change = tuple[Row | None, Row | None]
COLUMNS = (
    ("id", "BIGINT NOT NULL"),
    ("name", "STRING"),
    ("age", "INT"),
    ("price", "DECIMAL(10, 2)"),
    ("at", "TIMESTAMP(3)"),
    ("score", "DOUBLE"),
)
"""Names and Flink types of the columns of `changes`."""


def changes(count: int, seed: int = 1) -> Iterator[Change]:
    """Three inserts, an update of one field and a delete, again and again."""
    chance = random.Random(seed)
    for number in range(count):
        row = {
            "id": number,
            "name": f"name {chance.randrange(1000)}",
            "age": number % 90,
            "price": f"{number % 1000}.25",
            "at": f"2026-03-01 12:{number % 60:02d}:00.123",
            "score": chance.random(),
        }
        before = row | {"age": None if number % 10 == 3 else 17}
        yield [(None, row), (None, row), (None, row), (before, row), (row, None)][number % 5]


def debezium(change: Change) -> bytes:
    """A Debezium envelope without a schema."""
    return json.dumps(_envelope(change)).encode()


def debezium_with_schema(change: Change) -> bytes:
    """A Debezium envelope as Kafka Connect writes it with schemas enabled."""
    fields = [{"type": "int64", "optional": False, "field": "id"}]
    schema = {
        "type": "struct",
        "fields": [{"type": "struct", "fields": fields, "field": "after"}],
        "name": "x.Envelope",
    }
    return json.dumps({"schema": schema, "payload": _envelope(change)}).encode()


def _envelope(change: Change) -> Row:
    before, after = change
    operation = "c" if before is None else "d" if after is None else "u"
    source = {
        "version": "2.7.0.Final", "connector": "mysql", "name": "shop", "ts_ms": 1772366400123, "snapshot": "false",
        "db": "inventory", "schema": None, "table": "products", "server_id": 223344, "file": "binlog.000003",
        "pos": 154, "row": 0, "query": None,
    }  # fmt: skip
    times = {"ts_ms": 1772366400456, "transaction": None}
    return {"before": before, "after": after, "source": source, "op": operation, **times}


def maxwell(change: Change) -> bytes:
    """A Maxwell record; `old` holds what has changed."""
    before, after = change
    kind = "insert" if before is None else "delete" if after is None else "update"
    record = {
        "database": "inventory", "table": "products", "type": kind, "ts": 1772366400, "xid": 7201, "commit": True,
        "primary_key_columns": ["id"], "data": after if after is not None else before,
    }  # fmt: skip
    if before is not None and after is not None:
        record["old"] = _changed(before, after)
    return json.dumps(record).encode()


def canal(*group: Change) -> bytes:
    """A Canal record of changes of one kind; values are texts."""
    before, after = group[0]
    kind = "INSERT" if before is None else "DELETE" if after is None else "UPDATE"
    rows = [_texts(new if new is not None else old or {}) for old, new in group]
    olds = None
    if kind == "UPDATE":
        olds = [_changed(_texts(old or {}), _texts(new or {})) for old, new in group]
    names = list(rows[0])
    record = {
        "data": rows, "database": "inventory", "es": 1772366400000, "id": 9, "isDdl": False,
        "mysqlType": dict.fromkeys(names, "varchar(255)"), "old": olds, "pkNames": ["id"], "sql": "",
        "sqlType": dict.fromkeys(names, 12), "table": "products", "ts": 1772366400798, "type": kind,
    }  # fmt: skip
    return json.dumps(record).encode()


def changelog(kind: str, row: Row) -> bytes:
    """A record of Ververica's changelog-json."""
    return json.dumps({"data": row, "op": kind}).encode()


def _changelogs(change: Change) -> list[bytes]:
    before, after = change
    if before is None or after is None:
        return [changelog("+I" if before is None else "-D", (after if before is None else before) or {})]
    return [changelog("-U", before), changelog("+U", after)]


def _texts(row: Row) -> Row:
    return {
        name: value if value is None or isinstance(value, str | list) else json.dumps(value)
        for name, value in row.items()
    }


def _changed(before: Row, after: Row) -> Row:
    return {name: value for name, value in before.items() if value != after[name]}


def _single(encode: Callable[..., bytes]) -> Callable[[Change], list[bytes]]:
    return lambda change: [encode(change)]


ENCODERS: dict[str, Callable[[Change], list[bytes]]] = {
    "debezium-json": _single(debezium),
    "canal-json": _single(canal),
    "maxwell-json": _single(maxwell),
    "changelog-json": _changelogs,
}
"""By format: the records that say one change."""


def samples(format_name: str, count: int, seed: int = 1) -> list[bytes]:
    """Values of `count` changes in a format, for the table of `COLUMNS`."""
    return [value for change in changes(count, seed) for value in ENCODERS[format_name](change)]


def read_row_by_row(format_name: str, values: Sequence[bytes]) -> list[Row]:
    """The rows that records hold, as a short script would read them: one Python object each."""
    return [row for value in values for row in _READERS[format_name](orjson.loads(value))]


def _debezium_rows(record: Row) -> list[Row]:
    return [row for row in (record["before"], record["after"]) if row is not None]


def _canal_rows(record: Row) -> list[Row]:
    rows = []
    for row, old in zip(record["data"], record["old"] or [None] * len(record["data"]), strict=True):
        rows += [row] if old is None else [row | old, row]
    return [
        row | {"id": int(row["id"]), "age": row["age"] and int(row["age"]), "score": float(row["score"])}
        for row in rows
    ]


def _maxwell_rows(record: Row) -> list[Row]:
    return [record["data"] | record["old"], record["data"]] if "old" in record else [record["data"]]


_READERS: dict[str, Callable[[Row], list[Row]]] = {
    "debezium-json": _debezium_rows,
    "canal-json": _canal_rows,
    "maxwell-json": _maxwell_rows,
    "changelog-json": lambda record: [record["data"]],
}
