"""Tables that a Flink CDC pipeline found, as they were then: what is declared of a table never changes by itself.

Definitions are made of what stands here, so that loading them asks no server. Changes of a table's columns while it is
followed are schema versions on top (`engine/schema_history.py`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from vector_assets.engine.core import canonical
from vector_assets.engine.ledger import Ledger
from vector_assets.engine.schema import Column, LogicalType


@dataclass(frozen=True, slots=True)
class CapturedTable:
    """A source table by its full name (`database.table`), with the columns and the key that it had when it was found.

    `left_out` are columns of types that cannot be read, with their type; `untold` is what happens to its rows and
    cannot be read, in sentences; `facts` is what the sink said of its place then; `waits` is why it is not read yet
    (None: it is).
    """

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    comment: str | None = None
    left_out: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict, compare=False)
    waits: str | None = None
    untold: tuple[str, ...] = ()

    @property
    def database(self) -> str:
        """The part before the first dot."""
        return self.name.partition(".")[0]

    @property
    def table(self) -> str:
        """The part behind the first dot."""
        return self.name.partition(".")[2]


def captured(ledger: Ledger, capture: str) -> list[CapturedTable]:
    """The tables of a CDC pipeline, those that were found first first."""
    rows = ledger.store.rows(
        "SELECT * FROM captured_tables WHERE capture = ? ORDER BY found_ms, source_table", (capture,)
    )
    return [_table(row["source_table"], orjson.loads(row["detail"]), row["state"]) for row in rows]


def note(ledger: Ledger, capture: str, tables: Iterable[CapturedTable]) -> None:
    """Keep tables that are new; one that is known stays as it is."""
    with ledger.store.transaction():
        ledger.store.change_many(
            "INSERT INTO captured_tables (capture, source_table, detail, state, found_ms) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (capture, source_table) DO NOTHING",
            [(capture, each.name, _detail(each), each.waits or "", ledger.now_ms()) for each in tables],
        )


def forget(ledger: Ledger, capture: str, table: str) -> bool:
    """Take a table out: the next look finds it as it is then. False where it was not known."""
    with ledger.store.transaction():
        return bool(
            ledger.store.change("DELETE FROM captured_tables WHERE capture = ? AND source_table = ?", (capture, table))
        )


def let_read(ledger: Ledger, capture: str, table: str) -> bool:
    """A table that waits is read from now on. False where none of that name waits."""
    with ledger.store.transaction():
        return bool(
            ledger.store.change(
                "UPDATE captured_tables SET state = '' WHERE capture = ? AND source_table = ? AND state <> ''",
                (capture, table),
            )
        )


def _detail(table: CapturedTable) -> str:
    columns = [
        [each.name, each.type.name, each.type.precision, each.type.scale, each.type.nullable, each.comment]
        for each in table.columns
    ]
    return canonical(
        {
            "columns": columns,
            "key": list(table.key),
            "comment": table.comment,
            "left_out": list(table.left_out),
            "facts": dict(table.facts),
            "untold": list(table.untold),
        }
    )


def _table(name: str, detail: Mapping[str, Any], state: str) -> CapturedTable:
    columns = tuple(
        Column(column, LogicalType(kind, precision, scale, nullable=nullable), comment=comment)
        for column, kind, precision, scale, nullable, comment in detail["columns"]
    )
    return CapturedTable(
        name, columns, tuple(detail["key"]), detail["comment"], tuple(detail["left_out"]), detail["facts"],
        state or None, tuple(detail.get("untold", ())),
    )  # fmt: skip
