"""Changes of several tables in envelopes: the rows of some of them, in a target whose columns grow with theirs.

A record names its table; those of tables that are not wanted are passed over and counted as filtered. Records do not
tell of what was done to a table, so columns are only added and widened, never dropped or renamed.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.engine.captured import type_json
from vector_assets.engine.core import POSITION, REJECT_SCHEMA, Decoded, Json, SchemaChange, rejects
from vector_assets.engine.errors import DriftError
from vector_assets.engine.schema import Column, LogicalType, Table
from vector_assets.engine.widening import common, holds
from vector_assets.formats.canal_json import CanalJsonDecoder, CanalJsonOptions
from vector_assets.formats.captured_book import Book, type_entry
from vector_assets.formats.captured_plan import Behavior
from vector_assets.formats.changelog import STRING, ChangelogDecoder, row_of
from vector_assets.formats.debezium_json import DebeziumJsonDecoder, DebeziumJsonOptions
from vector_assets.formats.enveloped_scan import Seen, canal_seen, debezium_seen
from vector_assets.formats.grammar import as_mask
from vector_assets.formats.json_rows import JsonRows, JsonRules
from vector_assets.formats.pieces import pieces

log = logging.getLogger(__name__)

EnvelopeOptions = CanalJsonOptions | DebeziumJsonOptions
_REMEDY = "set schema.change.behavior to lenient, or to ignore"
_ORIGIN = ("database_name", "table_name")
_KEYS = {
    "canal-json": {"row_kind": "op", "op_ts": "event-timestamp"},
    "debezium-json": {"row_kind": "op", "op_ts": "source.timestamp"},
}
"""METADATA keys of the formats, by those that this decoder knows beside the names of database and table."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """What of some records is of the wanted tables; `databases` and `tables` are their names."""

    documents: pa.Array
    positions: pa.Array
    databases: pa.Array
    tables: pa.Array
    rejected: pa.Table
    filtered: int


class EnvelopedDecoder:
    """Rows of the target's columns as they are now. Immutable, so threads may share it.

    `columns` are those of the first discovery, for ever; `tables` are the full names of the wanted tables, `metadata`
    the columns that name what a record says of itself: `database_name`, `table_name`, `row_kind` or `op_ts`.
    """

    def __init__(
        self, options: EnvelopeOptions, columns: Sequence[Column], tables: Iterable[str],
        behavior: Behavior = "lenient", *, metadata: Sequence[Column] = (), state: Sequence[Json] = (),
    ) -> None:  # fmt: skip
        self._options, self._declared, self._behavior = options, tuple(columns), behavior
        self._tables, self._metadata, self._state = frozenset(tables), tuple(metadata), tuple(state)
        self._book = Book.of(columns, self._state)
        self._refused = {
            str(entry["name"]).lower()
            for entry in self._state
            if isinstance(entry, dict) and entry["op"] == "refused" and "name" in entry
        }
        self._names = pa.array(sorted(self._tables), pa.string())
        self._inner = self._reader()
        self._origin = JsonRows(self._origin_members(), JsonRules())

    @property
    def _name(self) -> str:
        return "canal-json" if isinstance(self._options, CanalJsonOptions) else "debezium-json"

    @property
    def _has_schema(self) -> bool:
        return isinstance(self._options, DebeziumJsonOptions) and self._options.schema_include

    def _reader(self) -> ChangelogDecoder:
        keys = _KEYS[self._name]
        own = [
            replace(column, metadata_key=keys[str(column.metadata_key)])
            for column in self._metadata
            if column.metadata_key not in _ORIGIN
        ]
        key = tuple(column.name for column in self._declared if not column.type.nullable)
        table = Table("rows", (*self._book.columns, *own), key)
        if isinstance(self._options, CanalJsonOptions):
            return CanalJsonDecoder(self._options, table)
        return DebeziumJsonDecoder(self._options, table)

    def _origin_members(self) -> list[tuple[str, LogicalType]]:
        if isinstance(self._options, CanalJsonOptions):
            return [("database", STRING), ("table", STRING)]
        source = ("source", row_of([("db", STRING), ("schema", STRING), ("table", STRING)]))
        return [("payload", row_of([source]))] if self._has_schema else [source]

    @property
    def evolves(self) -> bool:
        """The target's columns may change."""
        return self._behavior not in {"exception", "ignore"}

    @property
    def columns(self) -> tuple[Column, ...]:
        """The target's columns as they are now."""
        return self._book.columns

    @property
    def renamed(self) -> dict[str, str]:
        """Nothing: records do not tell of renames."""
        return {}

    def evolved(self, state: Sequence[Json]) -> Self:
        """The decoder as declared, with the changes of `state`."""
        return type(self)(
            self._options, self._declared, self._tables, self._behavior, metadata=self._metadata, state=state
        )

    def decode(self, raw: pa.RecordBatch | pa.Table) -> Decoded:
        """Rows and rejects of RAW_SCHEMA + `_position`, both in the order of the records.

        Raises:
            DriftError: a record has a column that is not known, and the behaviour is `exception`.
        """
        parts, wants, book = list[Decoded](), list[SchemaChange](), self._book
        for values, positions in pieces(raw):
            piece = self._mine(values, positions)
            book, wanted = self._wants(raw, piece, book)
            wants += wanted
            parts.append(self._rows(piece))
        empty = self._rows(self._mine(pa.array([], pa.binary()), pa.array([], pa.int64()))).rows
        return Decoded(
            pa.concat_tables([empty, *(part.rows for part in parts)]),
            pa.concat_tables([REJECT_SCHEMA.empty_table(), *(part.rejected for part in parts)]),
            nulled=sum(part.nulled for part in parts),
            filtered=sum(part.filtered for part in parts),
            wants=tuple(wants),
        )

    def _mine(self, values: pa.Array, positions: pa.Array) -> _Piece:
        """The records of the wanted tables; one that names no table is rejected."""
        count = len(values)
        is_something = pc.fill_null(pc.greater(pc.binary_length(values), 0), fill_value=False)
        values, positions = values.filter(is_something), positions.filter(is_something)
        parsed = self._origin.parse(values)
        databases, tables = self._named(parsed.columns)
        errors = dict(parsed.errors)
        for place in parsed.places[~as_mask(pc.and_(databases.is_valid(), tables.is_valid()))].tolist():
            errors[place] = self._nameless()
        names = pc.binary_join_element_wise(databases, tables, ".")
        chosen = np.flatnonzero(as_mask(pc.is_in(names, self._names)))
        kept = pa.array(parsed.places[chosen])
        wrong = sorted(errors)
        texts = pa.array([f"{self._name}: {errors[place]}" for place in wrong], pa.string())
        rejected = rejects(positions.take(pa.array(wrong, pa.int64())), "decode", texts)
        taken = pa.array(chosen)
        return _Piece(
            values.take(kept), positions.take(kept), databases.take(taken), tables.take(taken), rejected,
            count - len(wrong) - len(kept),
        )  # fmt: skip

    def _named(self, columns: list[pa.Array]) -> tuple[pa.Array, pa.Array]:
        """Names of databases and tables; where a database has schemas, that of the schema."""
        if isinstance(self._options, CanalJsonOptions):
            return columns[0], columns[1]
        source = columns[0].flatten()[0] if self._has_schema else columns[0]
        database, schema, table = source.flatten()
        return pc.coalesce(schema, database), table

    def _nameless(self) -> str:
        if isinstance(self._options, CanalJsonOptions):
            return "columns database, table: found nothing, wanted the names of a table"
        has = "true" if self._has_schema else "false"
        where = "payload.source" if self._has_schema else "source"
        return f"column {where}: found no db and table; 'debezium-json.schema-include' is {has}"

    def _rows(self, piece: _Piece) -> Decoded:
        """The rows, with the names of database and table where they are asked for."""
        decoded = self._inner.decode(pa.table({"value": piece.documents, POSITION: piece.positions}))
        rows = decoded.rows
        for column in self._metadata:
            if column.metadata_key in _ORIGIN:
                names = piece.databases if column.metadata_key == "database_name" else piece.tables
                where = np.searchsorted(np.asarray(piece.positions), np.asarray(rows.column(POSITION)))
                rows = rows.append_column(pa.field(column.name, column.type.arrow), names.take(pa.array(where)))
        rejected = pa.concat_tables([piece.rejected, decoded.rejected]).sort_by(POSITION)
        return Decoded(rows, rejected, decoded.nulled, piece.filtered + decoded.filtered)

    def _wants(
        self, raw: pa.RecordBatch | pa.Table, piece: _Piece, book: Book
    ) -> tuple[Book, list[SchemaChange]]:  # fmt: skip
        if self._behavior == "ignore" or not len(piece.documents):
            return book, []
        wants: list[SchemaChange] = []
        for seen in self._seen(piece.documents, book):
            at = int(piece.positions[seen.first].as_py())
            owner = f"{piece.databases[seen.first].as_py()}.{piece.tables[seen.first].as_py()}"
            for name, kind in seen.columns.items():
                if kind is None:
                    _tell_unreadable(owner, name)
                    continue
                change = self._change(book, owner, name, kind, at)
                if change is None:
                    continue
                if isinstance(change, str) or self._behavior == "exception":
                    what = (
                        change if isinstance(change, str) else f"{change.what}, and schema.change.behavior is exception"
                    )
                    raise self._drift(raw, at, what)
                entry: Any = change.entry
                book = book.with_entry(entry)
                wants.append(change)
        return book, wants

    def _seen(self, documents: pa.Array, book: Book) -> list[Seen]:
        known = frozenset(column.name for column in book.columns)
        if isinstance(self._options, CanalJsonOptions):
            return canal_seen(documents, known)
        return debezium_seen(documents, known, has_schema=self._has_schema)

    def _change(
        self, book: Book, owner: str, name: str, kind: LogicalType, at: int
    ) -> SchemaChange | str | None:  # fmt: skip
        """The change that a column asks for; a text is why it cannot be."""
        required = self._behavior in {"evolve", "lenient"}
        number = book.by_name(name)
        if number is None:
            if name.lower() in self._refused:
                return None
            number = len(book.targets)
            add = {"op": "add", "number": number, "name": name, "type": type_json(kind)}
            refusal = {"op": "refused", "number": number, "name": name}
            return SchemaChange(at, f"{owner}: column {name} {kind} is new", add, refusal, is_required=required)
        column = book.target(number)
        if column.name != name:
            return f"{owner}: column {name} and column {column.name} of the target differ in their case only"
        if holds(column.type, kind):
            return None
        wide = common(column.type, kind)
        if wide == column.type or (number, str(wide)) in book.refused:
            return None
        entry = type_entry(number, wide)
        what = f"{owner}: column {name} is {kind}: it becomes {wide}"
        return SchemaChange(at, what, entry, {**entry, "op": "refused"}, is_required=required)

    def _drift(self, raw: pa.RecordBatch | pa.Table, at: int, what: str) -> DriftError:
        row = int(np.flatnonzero(np.asarray(raw.column(POSITION)) == at)[0])
        split, offset = (int(raw.column(name)[row].as_py()) for name in ("split", "offset"))
        return DriftError(split, offset, what, _REMEDY)


@lru_cache(maxsize=1024)
def _tell_unreadable(owner: str, name: str) -> None:
    """Once for every column: rows come without it."""
    log.warning("%s: column %s holds bytes, which are not read out of JSON, and is left out", owner, name)
