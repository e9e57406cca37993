"""Types of columns out of what envelopes say of them: canal's `mysqlType`, Kafka Connect's schema, or values. Pure.

A type is that of the value as it stands in the JSON, which is what formats canal-json and debezium-json read.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

import orjson

from vector_assets.clients.mysql_schema import GEOMETRIES, MySqlColumn
from vector_assets.engine.schema import LogicalType
from vector_assets.formats.lake_infer import infer

TEXT = LogicalType("VARCHAR")
Columns = Mapping[str, LogicalType | None]
"""Types by name; None is one of which the JSON does not hold the value in a form that could be read."""

_MYSQL = re.compile(r"([a-z]+)(?:\((\d+)(?:,\s*(\d+))?\))?")
_BYTES = frozenset({"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"}) | GEOMETRIES
_MOST_BITS = 63
_CONNECT = {
    "int8": "TINYINT", "int16": "SMALLINT", "int32": "INT", "int64": "BIGINT", "float": "FLOAT", "float32": "FLOAT",
    "double": "DOUBLE", "float64": "DOUBLE", "boolean": "BOOLEAN",
}  # fmt: skip


def mysql_type(text: str) -> LogicalType | None:
    """The type of canal's text for a column of a MySQL type such as `int(11) unsigned`; a type nobody knows is a text.

    Flags of one bit are numbers as canal writes them, and a TIMESTAMP has the server's clock in it, not an instant.
    """
    full = text.lower().strip()
    match = _MYSQL.match(full)
    if match is None or match[1] in _BYTES:
        return None if match is not None else TEXT
    name, first, second = match[1], match[2], match[3]
    if name == "tinyint" and "unsigned" not in full:
        return LogicalType("TINYINT")
    if name == "bit":
        return LogicalType("BIGINT") if int(first or 1) <= _MOST_BITS else TEXT
    number = int(first) if first is not None else None
    found = MySqlColumn(
        "", {"integer": "int", "dec": "decimal"}.get(name, name), full, nullable=True, length=number,
        precision=number or 10, scale=int(second or 0), fraction=number,
    ).logical  # fmt: skip
    if found is not None and found.name == "TIMESTAMP_LTZ":
        return LogicalType("TIMESTAMP", found.precision)
    return found or TEXT


@lru_cache(maxsize=1024)
def canal_columns(mysql_types: str) -> Columns:
    """Types by the text of `mysqlType`; none unless it is an object of texts."""
    found = orjson.loads(mysql_types)
    if not isinstance(found, dict):
        return {}
    return {name: mysql_type(kind) if isinstance(kind, str) else TEXT for name, kind in found.items()}


@lru_cache(maxsize=256)
def connect_columns(schema: str) -> Columns:
    """Types by the text of an envelope's `schema`: those of the row in `after`; none unless it says them."""
    found = orjson.loads(schema)
    fields = found.get("fields") if isinstance(found, dict) else None
    rows = [each for each in fields or () if isinstance(each, dict) and each.get("field") in {"after", "before"}]
    if not rows:
        return {}
    # both are of one type, which may be written out in the first only
    row = next((each for each in rows if each.get("fields")), rows[0])
    return {each["field"]: _connect(each) for each in row.get("fields") or ()}


def _connect(field: Mapping[str, Any]) -> LogicalType | None:
    kind = field.get("type")
    if kind == "bytes":
        return None
    return LogicalType(_CONNECT[kind]) if kind in _CONNECT else TEXT


def of_values(values: Iterable[bytes]) -> LogicalType:
    """The type that holds these values, each of them JSON text; a text unless they are of one kind."""
    fields = infer([b'{"v":%b}' % value for value in values]).fields
    return fields[0].type if fields and not fields[0].json else TEXT
