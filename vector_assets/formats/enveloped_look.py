"""Tables in sample records of a topic of changes: their columns, and the key if the records name one."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vector_assets.engine.schema import Column, LogicalType
from vector_assets.engine.widening import common
from vector_assets.formats.enveloped_types import TEXT, Columns, canal_columns, connect_columns
from vector_assets.formats.lake_infer import infer


@dataclass(slots=True)
class FoundTable:
    """A table by its full name; `left_out` are columns whose values JSON does not hold in a form that can be read."""

    name: str
    kinds: dict[str, LogicalType | None] = field(default_factory=dict)
    key: tuple[str, ...] = ()
    rows: list[bytes] = field(default_factory=list)

    def see(self, columns: Columns) -> None:
        """Take the columns of a record into account."""
        for name, kind in columns.items():
            known = self.kinds.setdefault(name, kind)
            self.kinds[name] = None if kind is None or known is None else common(known, kind)

    @property
    def columns(self) -> tuple[Column, ...]:
        """What can be read; what is not of the key may be null."""
        return tuple(
            Column(name, LogicalType(kind.name, kind.precision, kind.scale, nullable=name not in self.key))
            for name, kind in self.kinds.items()
            if kind is not None
        )

    @property
    def left_out(self) -> tuple[str, ...]:
        """Columns that cannot be read, and why."""
        return tuple(f"{name} (bytes)" for name, kind in self.kinds.items() if kind is None)


def tables_in(
    format: str, records: Iterable[tuple[bytes | None, bytes | None]], *, has_schema: bool
) -> list[FoundTable]:
    """The tables of some records (key and value), in the order of their names; what is no change is passed over.

    The newest record decides the key. Slow path: samples, not a stream.
    """
    found: dict[str, FoundTable] = {}
    for key, value in records:
        document = _object(value)
        if document is not None:
            (_canal if format == "canal-json" else _debezium)(found, key, document, has_schema)
    for table in found.values():
        if table.rows:
            fields = infer(table.rows).fields
            table.see({each.path[0]: TEXT if each.json else each.type for each in fields})
        table.key = tuple(name for name in table.key if table.kinds.get(name) is not None)
    return [found[name] for name in sorted(found) if found[name].kinds]


def _object(text: bytes | None) -> dict[str, Any] | None:
    try:
        found = json.loads(text) if text else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _table(found: dict[str, FoundTable], database: Any, table: Any) -> FoundTable | None:
    if not isinstance(database, str) or not isinstance(table, str):
        return None
    name = f"{database}.{table}"
    return found.setdefault(name, FoundTable(name))


def _canal(found: dict[str, FoundTable], key: bytes | None, document: Mapping[str, Any], has_schema: bool) -> None:  # noqa: FBT001
    del key, has_schema
    if document.get("type") not in {"INSERT", "UPDATE", "DELETE"}:
        return
    table = _table(found, document.get("database"), document.get("table"))
    if table is None:
        return
    table.key = tuple(map(str, document.get("pkNames") or ()))
    kinds = document.get("mysqlType")
    rows = [each for each in document.get("data") or () if isinstance(each, dict)]
    if isinstance(kinds, dict):
        table.see(canal_columns(json.dumps(kinds)))
    else:
        # no type at all: it says nothing against one that another record names
        table.see({name: TEXT for row in rows for name in row if name not in table.kinds})


def _debezium(found: dict[str, FoundTable], key: bytes | None, document: Mapping[str, Any], has_schema: bool) -> None:  # noqa: FBT001
    payload = document.get("payload") if has_schema else document
    source = payload.get("source") if isinstance(payload, dict) else None
    if not isinstance(payload, dict) or not isinstance(source, dict):
        return
    rows = [payload[name] for name in ("before", "after") if isinstance(payload.get(name), dict)]
    table = _table(found, source.get("schema") or source.get("db"), source.get("table")) if rows else None
    if table is None:
        return
    named = _object(key) or {}
    named = named["payload"] if isinstance(named.get("payload"), dict) and "schema" in named else named
    table.key = tuple(named)
    if has_schema:
        table.see(connect_columns(json.dumps(document.get("schema"))))
    else:
        table.rows += [json.dumps(row).encode() for row in rows]
