"""Changes out of JSON envelopes: what debezium-json, canal-json, maxwell-json and changelog-json share.

A record is an envelope around one row or several, as they were before and after a change. It gives 0 to n rows with
Flink's row kinds, UPDATE_BEFORE before UPDATE_AFTER. A record that is wrong anywhere is rejected as a whole; null and
empty values (tombstones) and envelopes without a row (DDL) are passed over and counted as filtered.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ConfigDict

from vector_assets.engine.core import KIND, POSITION, REJECT_SCHEMA, Decoded, RowKind, rejects
from vector_assets.engine.errors import ConfigError
from vector_assets.engine.options import Flag, Options
from vector_assets.engine.schema import Column, LogicalType, Table
from vector_assets.formats.grammar import Mask, as_mask
from vector_assets.formats.json_blocks import Places
from vector_assets.formats.json_rows import JsonRules, ParsedRows
from vector_assets.formats.pieces import pieces

STRING = LogicalType("VARCHAR")
BIGINT = LogicalType("BIGINT")
TIME = LogicalType("TIMESTAMP_LTZ", 3)
_ADDED = (int(RowKind.INSERT), int(RowKind.UPDATE_AFTER))
_FOUND_CHARS = 60

Kinds = npt.NDArray[np.int8]


@dataclass(slots=True)
class Changes:
    """Rows of the table's physical columns: row j has kind `kinds[j]` and comes out of envelope `owners[j]`.

    `owners` ascend. `wrong` says why envelopes are rejected as a whole; their rows need not be there, and are not used.
    """

    owners: Places
    kinds: Kinds
    columns: list[pa.Array]
    wrong: dict[int, str] = field(default_factory=dict)
    nulled: int = 0


@dataclass(frozen=True, slots=True)
class Envelopes:
    """Parsed envelopes: `columns[name][j]` is a member of the document at `places[j]`; the others have errors."""

    columns: Mapping[str, pa.Array]
    places: Places
    errors: dict[int, str]
    nulled: int = 0

    @classmethod
    def of(cls, parsed: ParsedRows, names: Sequence[str]) -> "Envelopes":
        """What `JsonRows` read, by name."""
        return cls(dict(zip(names, parsed.columns, strict=True)), parsed.places, parsed.errors, parsed.nulled)


OPERATION = "op"
"""The METADATA key of every changelog format beside its own: what a row does, as Flink spells it in short."""
_SHORT = pa.array(["+I", "-U", "+U", "-D"])


class ChangelogDecoder(ABC):
    """Raw records to changes of the table's rows, by a format's envelope. Immutable, so threads may share it."""

    CHANGELOG: ClassVar[bool] = True
    METADATA: ClassVar[Mapping[str, LogicalType]] = {OPERATION: LogicalType("VARCHAR", nullable=False)}
    NAME: ClassVar[str]

    def __init__(self, rules: JsonRules, table: Table) -> None:
        """Keep what the table wants; the subclass makes its readers.

        Raises:
            ConfigError: no physical column, or a METADATA key that the format does not know; names the column.
        """
        if not table.physical:
            reason = f"table {table.name} has no physical column to read into"
            raise ConfigError(f"format {self.NAME}: {reason}", table.place)
        self.rules = rules
        self.physical = tuple((column.name, replace(column.type, nullable=True)) for column in table.physical)
        self._metadata = tuple(column for column in table.columns if column.kind == "metadata")
        for column in self._metadata:
            if column.metadata_key not in self.METADATA:
                what = f"column {column.name}: unknown METADATA key {column.metadata_key!r}"
                known = ", ".join(self.METADATA) or "none"
                raise ConfigError(f"format {self.NAME}: {what}; known: {known}", column.place)
        self._rows = tuple(column for column in table.columns if column.kind != "computed")
        self._required = tuple(column for column in table.physical if not column.type.nullable)
        self._key = frozenset(table.primary_key)
        fields = [pa.field(column.name, column.type.arrow) for column in self._rows]
        hidden = [pa.field(KIND, pa.int8(), nullable=False), pa.field(POSITION, pa.int64(), nullable=False)]
        self._schema = pa.schema([*fields, *hidden])

    @property
    def wanted(self) -> frozenset[str]:
        """The METADATA keys that the table has columns for."""
        return frozenset(column.metadata_key or "" for column in self._metadata)

    @abstractmethod
    def read(self, documents: pa.Array) -> Envelopes:
        """The envelopes of documents, none of which is null or empty."""

    @abstractmethod
    def changes(self, documents: pa.Array, envelopes: Envelopes) -> Changes:
        """The rows in the envelopes."""

    def metadata(self, key: str, envelopes: Envelopes) -> pa.Array:
        """The value of a METADATA key, one for each envelope, in the type that METADATA says."""
        return envelopes.columns[key]

    def decode(self, raw: pa.RecordBatch | pa.Table) -> Decoded:
        """Rows and rejects of RAW_SCHEMA + `_position`, both in the order of the records."""
        done = [self._piece(values, positions) for values, positions in pieces(raw)]
        return Decoded(
            rows=pa.concat_tables([self._schema.empty_table(), *(piece.rows for piece in done)]),
            rejected=pa.concat_tables([REJECT_SCHEMA.empty_table(), *(piece.rejected for piece in done)]),
            nulled=sum(piece.nulled for piece in done),
            filtered=sum(piece.filtered for piece in done),
        )

    def _piece(self, values: pa.Array, positions: pa.Array) -> Decoded:
        is_something = pc.fill_null(pc.greater(pc.binary_length(values), 0), fill_value=False)
        count = len(values)
        documents = values
        if not pc.all(is_something).as_py():
            documents, positions = values.filter(is_something), positions.filter(is_something)
        envelopes = self.read(documents)
        changes = self.changes(documents, envelopes)
        self._check_nulls(changes)
        errors = envelopes.errors | {int(envelopes.places[place]): why for place, why in changes.wrong.items()}
        rows, owners = self._assembled(envelopes, changes)
        records = envelopes.places[owners]
        rows = pa.Table.from_arrays([*rows, positions.take(pa.array(records))], schema=self._schema)
        wrong = sorted(errors)
        texts = pa.array([f"{self.NAME}: {errors[place]}" for place in wrong], pa.string())
        rejected = rejects(positions.take(pa.array(wrong, pa.int64())), "decode", texts)
        filtered = count - len(wrong) - _distinct(records)
        return Decoded(rows, rejected, envelopes.nulled + changes.nulled, filtered)

    def _assembled(self, envelopes: Envelopes, changes: Changes) -> tuple[list[pa.Array], Places]:
        """The rows' columns and kinds without the envelopes that are wrong, and whose they are."""
        owners, kinds, columns = changes.owners, changes.kinds, changes.columns
        if changes.wrong:
            is_wrong = np.zeros(len(envelopes.places), bool)
            is_wrong[list(changes.wrong)] = True
            kept = np.flatnonzero(~is_wrong[owners])
            owners, kinds = owners[kept], kinds[kept]
            columns = [column.take(pa.array(kept)) for column in columns]
        named = dict(zip((name for name, _ in self.physical), columns, strict=True))
        rows = [
            named[column.name] if column.kind == "physical" else self._metadata_column(column, envelopes, owners, kinds)
            for column in self._rows
        ]
        return [*rows, pa.array(kinds)], owners

    def _metadata_column(self, column: Column, envelopes: Envelopes, owners: Places, kinds: Kinds) -> pa.Array:
        if column.metadata_key == OPERATION:
            return _SHORT.take(pa.array(kinds)).cast(column.type.arrow)
        values = self.metadata(column.metadata_key or column.name, envelopes)
        return values.cast(column.type.arrow, safe=False).take(pa.array(owners))

    def _check_nulls(self, changes: Changes) -> None:
        """Reject rows that lack a NOT NULL column; one that is deleted may hold nothing but the key."""
        places = {name: place for place, (name, _) in enumerate(self.physical)}
        is_added = np.isin(changes.kinds, _ADDED)
        for column in self._required:
            values = changes.columns[places[column.name]]
            if not values.null_count:
                continue
            lacking = as_mask(values.is_null())
            for owner in changes.owners[lacking if column.name in self._key else lacking & is_added].tolist():
                changes.wrong.setdefault(owner, f"column {column.name}: found nothing, wanted {column.type}")


@dataclass(frozen=True, slots=True)
class Images:
    """Changes as pairs of rows: change j belongs to envelope `owners[j]` and is of a kind of `actions`.

    An INSERT gives its row after, a DELETE its row before, an UPDATE_AFTER both.
    """

    owners: Places
    actions: Kinds
    before: list[pa.Array]
    after: list[pa.Array]

    def changes(self) -> Changes:
        """The rows, those of a change behind each other."""
        is_update = self.actions == RowKind.UPDATE_AFTER
        source = np.repeat(np.arange(len(self.actions)), np.where(is_update, 2, 1))
        kinds = self.actions[source]
        kinds[_firsts(source) & is_update[source]] = RowKind.UPDATE_BEFORE
        index = pa.array(source + len(self.actions) * np.isin(kinds, _ADDED))
        pairs = zip(self.before, self.after, strict=True)
        columns = [pa.concat_arrays([before, after]).take(index) for before, after in pairs]
        return Changes(self.owners[source], kinds, columns)


class JsonChangesOptions(Options):
    """What Flink's JSON formats of changes have in common; each spells it under its own name (`spelled`)."""

    ignore_parse_errors: Flag = False
    """A value that does not fit its column is null and counted; a record that is no change is rejected."""
    timestamp_format: Literal["SQL", "ISO-8601"] = "SQL"
    """Spelling of TIMESTAMP and TIMESTAMP_LTZ: `SQL` (`2026-03-01 12:00:00.123`) or `ISO-8601`."""

    def rules(self) -> JsonRules:
        """How values are read."""
        return JsonRules(self.ignore_parse_errors, timestamp_format=self.timestamp_format)


class WritableChangesOptions(JsonChangesOptions):
    """Those of the formats that Flink writes, too: the options for writing are checked and have no effect."""

    map_null_key_mode: Literal["FAIL", "DROP", "LITERAL"] = "FAIL"
    """For writing only: no effect here."""
    map_null_key_literal: str = "null"
    """For writing only: no effect here."""
    decimal_as_plain_number: Flag = False
    """For writing only: no effect here."""
    ignore_null_fields: Flag = False
    """For writing only: no effect here."""


_SPELLED = {
    "ignore_parse_errors": "ignore-parse-errors",
    "timestamp_format": "timestamp-format.standard",
    "map_null_key_mode": "map-null-key.mode",
    "map_null_key_literal": "map-null-key.literal",
    "decimal_as_plain_number": "encode.decimal-as-plain-number",
    "ignore_null_fields": "encode.ignore-null-fields",
}


def spelled(name: str) -> ConfigDict:
    """The configuration of a format's options: the shared ones are spelled with the format's name before them."""
    return ConfigDict(alias_generator=lambda field: f"{name}.{_SPELLED.get(field, field)}")


def writing_only(name: str) -> dict[str, str]:
    """The options of a format that have no effect on a source, and why."""
    options = (
        "map-null-key.mode",
        "map-null-key.literal",
        "encode.decimal-as-plain-number",
        "encode.ignore-null-fields",
    )
    return dict.fromkeys((f"{name}.{option}" for option in options), "it is for writing, this pipeline reads")


def row_of(columns: Sequence[tuple[str, LogicalType]]) -> LogicalType:
    """The ROW of these columns."""
    return LogicalType("ROW", children=tuple(kind for _, kind in columns), child_names=tuple(n for n, _ in columns))


def actions_of(operations: pa.Array, known: Mapping[str, RowKind | None]) -> tuple[npt.NDArray[np.int64], Mask]:
    """The row kind that each operation's name means, -1 for those without rows; and which names are not known."""
    names = pa.array(list(known))
    kinds = np.array([-1 if kind is None else int(kind) for kind in known.values()], np.int64)
    places = pc.index_in(operations, names)
    is_unknown = as_mask(places.is_null())
    found = kinds[pc.fill_null(places, 0).to_numpy()]
    return np.where(is_unknown, -1, found), is_unknown


_NO_REMEDIES: Mapping[str | None, str] = {}


def unknown_operations(
    member: str, operations: pa.Array, is_unknown: Mask, known: Iterable[str],
    remedies: Mapping[str | None, str] = _NO_REMEDIES,
) -> dict[int, str]:  # fmt: skip
    """Why envelopes whose operation is not known are rejected; `remedies` say more of some of them."""
    places = np.flatnonzero(is_unknown)
    found = pc.utf8_slice_codeunits(operations.take(pa.array(places)), 0, _FOUND_CHARS).to_pylist()
    listed = ", ".join(known)
    return {
        place: f"column {member}: found {'nothing' if name is None else repr(name)}, wanted one of {listed}"
        + (f"; {remedies[name]}" if name in remedies else "")
        for place, name in zip(places.tolist(), found, strict=True)
    }


def milliseconds(values: pa.Array) -> pa.Array:
    """Milliseconds since 1970 as points in time."""
    return values.cast(pa.int64()).cast(TIME.arrow)


def _firsts(numbers: Places) -> Mask:
    """The first of each run of equal numbers."""
    firsts = np.ones(len(numbers), bool)
    firsts[1:] = numbers[1:] != numbers[:-1]
    return firsts


def _distinct(ascending: Places) -> int:
    return int(_firsts(ascending).sum())
