"""Format avro: one Kafka record is one Avro value of the schema that Flink derives from the table's columns."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
import orjson
import pyarrow as pa
from pydantic import BeforeValidator, Field

from vector_assets.engine.core import POSITION, REJECT_SCHEMA, Decoded, rejects
from vector_assets.engine.errors import ConfigError
from vector_assets.engine.options import Options
from vector_assets.engine.schema import Table
from vector_assets.formats.avro_cursor import Bytes, Cursor, Ints, padded
from vector_assets.formats.avro_nodes import Node
from vector_assets.formats.avro_resolve import Resolver, row_of
from vector_assets.formats.avro_schema import Avro, encoded, of_table
from vector_assets.formats.columns import physical_columns
from vector_assets.formats.grammar import byte_view

_PIECE_BYTES = 4 * 1024**2
_PIECE_RECORDS = 65_536
"""Records decoded at once: numpy's columns of this many stay in the processor's cache."""

CODECS = ("null", "deflate", "snappy", "bzip2", "xz", "zstandard")


def _flag(text: object) -> bool:
    spelled = str(text).lower()
    if spelled not in {"true", "false"}:
        raise ValueError(f"want true or false, found {text!r}")
    return spelled == "true"


Flag = Annotated[bool, BeforeValidator(_flag)]


class AvroOptions(Options):
    """Flink's options of the avro format."""

    idle: ClassVar[Mapping[str, str]] = {"avro.codec": "it is the compression of files that Flink writes"}

    encoding: Literal["binary", "json"] = Field("binary", alias="avro.encoding")
    """`binary`, or `json`: Avro's JSON encoding, where a value that may be null is `null` or `{"<type>": value}`. JSON
    is read record by record."""
    legacy: Flag = Field(default=True, alias="avro.timestamp_mapping.legacy")
    """`true`: TIMESTAMP(0) to TIMESTAMP(3) are Avro's timestamp-millis, as Flink always had it. `false`: TIMESTAMP is
    local-timestamp-millis or -micros (over three digits), TIMESTAMP_LTZ timestamp-millis or -micros."""
    codec: Literal[CODECS] | None = Field(None, alias="avro.codec")  # type: ignore[valid-type]
    """Compression of Avro files that Flink writes; checked, and without effect on records that are read."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Records that are decoded at once: their bytes, and where each lies in them."""

    data: Bytes
    starts: Ints
    ends: Ints
    positions: pa.Array
    null: "np.ndarray[tuple[int], np.dtype[np.bool_]]"


class AvroRows:
    """Records of known writers' schemas to rows of a table."""

    def __init__(self, table: Table, owner: str) -> None:
        """Refuse tables that the format cannot fill.

        Raises:
            ConfigError: no physical column, or a metadata column; names it.
        """
        columns = physical_columns(owner, table)
        self.owner = owner
        self.wanted = row_of(table)
        fields = [pa.field(name, kind.arrow, kind.nullable) for name, kind in columns]
        self.schema = pa.schema([*fields, pa.field(POSITION, pa.int64(), nullable=False)])

    def plan(self, writer: Avro, reader: Avro) -> Node:
        """What reads the writer's records.

        Raises:
            ConfigError: a default of the reader's schema is none.
        """
        return Resolver().node(writer, reader, self.wanted, "the record")

    def read(self, piece: Piece, plan: Node, which: Ints, skip: int = 0) -> Decoded:
        """The chosen records of a piece, without their first `skip` bytes."""
        cursor = Cursor(piece.data, piece.starts[which] + skip, piece.ends[which])
        rows = np.arange(len(which))
        columns = plan.read(cursor, rows).flatten()
        self._check_ends(cursor, rows)
        positions = piece.positions.take(pa.array(which))
        table = pa.Table.from_arrays([*columns, positions], schema=self.schema)
        if not cursor.reasons:
            return Decoded(table)
        bad = sorted(cursor.reasons)
        texts = pa.array([f"{self.owner}: {cursor.reasons[row]}" for row in bad], pa.string())
        kept = np.ones(len(which), bool)
        kept[bad] = False
        return Decoded(
            table.filter(pa.array(kept)), rejects(positions.take(pa.array(bad, pa.int64())), "decode", texts)
        )

    def _check_ends(self, cursor: Cursor, rows: Ints) -> None:
        rest = cursor.left(rows)
        bad = cursor.bad_among(rows)
        longer = rest > 0 if bad is None else (rest > 0) & ~bad
        for size in np.unique(rest[longer]).tolist()[:_MOST_SIZES]:
            cursor.fail(rows[longer & (rest == size)], f"{size} bytes follow the value (of another schema?)")
        bad = cursor.bad_among(rows)
        if bad is not None and (longer & ~bad).any():
            cursor.fail(rows[longer & ~bad], "bytes follow the value (of another schema?)")

    def refused(self, piece: Piece, which: Ints, reason: str) -> Decoded:
        """The chosen records of a piece as rejects."""
        positions = piece.positions.take(pa.array(which))
        return Decoded(self.schema.empty_table(), rejects(positions, "decode", f"{self.owner}: {reason}"))

    def joined(self, parts: Iterable[Decoded]) -> Decoded:
        """Parts of pieces in the order of the records."""
        done = list(parts)
        rows = pa.concat_tables([self.schema.empty_table(), *(part.rows for part in done)])
        rejected = pa.concat_tables([REJECT_SCHEMA.empty_table(), *(part.rejected for part in done)])
        return Decoded(_ascending(rows), _ascending(rejected))


_MOST_SIZES = 20


def _ascending(table: pa.Table) -> pa.Table:
    """The table by position; as it is when it is so already."""
    positions = table[POSITION].to_numpy()
    if (positions[1:] > positions[:-1]).all():
        return table
    return table.take(pa.array(np.argsort(positions, kind="stable")))


def pieces(raw: pa.RecordBatch | pa.Table) -> Iterator[Piece]:
    """The records, at most `_PIECE_RECORDS` and `_PIECE_BYTES` (but at least one record) at a time."""
    table = pa.Table.from_batches([raw]) if isinstance(raw, pa.RecordBatch) else raw
    for batch in table.select(["value", POSITION]).to_batches():
        values, positions = batch.columns
        data, bounds = byte_view(values)
        null = np.asarray(values.is_null().to_numpy(zero_copy_only=False), bool)
        start = 0
        while start < len(values):
            end = int(np.searchsorted(bounds, int(bounds[start]) + _PIECE_BYTES, side="right")) - 1
            end = min(max(end, start + 1), start + _PIECE_RECORDS, len(values))
            first, last = int(bounds[start]), int(bounds[end])
            places = bounds[start : end + 1].astype(np.int64) - first
            part = positions.slice(start, end - start)
            yield Piece(padded(data[first:last]), places[:-1], places[1:], part, null[start:end])
            start = end


class AvroDecoder:
    """Raw avro records to rows of the table's physical columns; all are inserts. Immutable, so threads may share it."""

    def __init__(self, options: AvroOptions, table: Table) -> None:
        """Refuse tables that Flink's format refuses.

        Raises:
            ConfigError: a type that Avro has no place for, such as TIMESTAMP(6) under the legacy mapping.
        """
        self._rows = AvroRows(table, "avro")
        self._schema = of_table(table, "format avro", legacy=options.legacy)
        for column in table.physical:
            if column.type.name.startswith("TIMESTAMP") and (column.type.precision or 0) > 6:
                found = f"format avro: column {column.name} of table {table.name} is {column.type}"
                raise ConfigError(f"{found}; Flink's avro reads up to six digits", column.place)
        self._plan = self._rows.plan(self._schema, self._schema)
        self._is_json = options.encoding == "json"

    def decode(self, raw: pa.RecordBatch | pa.Table) -> Decoded:
        """Rows and rejects of RAW_SCHEMA + `_position`, both in the order of the records."""
        return self._rows.joined(part for piece in pieces(raw) for part in self._parts(piece))

    def _parts(self, piece: Piece) -> Iterator[Decoded]:
        if piece.null.any():
            yield self._rows.refused(piece, np.flatnonzero(piece.null), "a null value, wanted a record")
        which = np.flatnonzero(~piece.null)
        if not self._is_json:
            yield self._rows.read(piece, self._plan, which)
            return
        done, places, wrong = self._from_json(piece, which)
        yield self._rows.read(done, self._plan, places)
        for place, reason in wrong.items():
            yield self._rows.refused(piece, np.array([place]), reason)

    def _from_json(self, piece: Piece, which: Ints) -> tuple[Piece, Ints, dict[int, str]]:
        """Slow path: each record's JSON encoding as the binary one; those that are none, with the reason."""
        whole = piece.data.tobytes()
        texts = [b""] * len(piece.starts)
        wrong: dict[int, str] = {}
        for place in which.tolist():
            try:
                value = orjson.loads(whole[piece.starts[place] : piece.ends[place]])
                texts[place] = encoded(self._schema, value, tagged=True)
            except (ValueError, RecursionError) as error:
                wrong[place] = f"JSON: {error}"
        data = padded(np.frombuffer(b"".join(texts), np.uint8))
        ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
        starts = np.concatenate([[0], ends[:-1]]).astype(np.int64)
        kept = which[~np.isin(which, list(wrong))]
        return Piece(data, starts, ends, piece.positions, piece.null), kept, wrong
