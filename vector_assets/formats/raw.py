"""Format raw: the record's value is the value of the table's only column, as in Flink.

Numbers are read from as many bytes as their type has; a value of another length is rejected. A null value is a null
row.
"""

import codecs
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
from pydantic import BeforeValidator, Field

from vector_assets.engine.core import POSITION, REJECT_SCHEMA, Decoded, rejects
from vector_assets.engine.errors import ConfigError
from vector_assets.engine.options import Options
from vector_assets.engine.schema import Table
from vector_assets.formats.columns import physical_columns
from vector_assets.formats.grammar import Mask, as_mask, byte_view, not_utf8, without
from vector_assets.formats.pieces import pieces

_NUMBERS = {
    "BOOLEAN": "u1",
    "TINYINT": "i1",
    "SMALLINT": "i2",
    "INT": "i4",
    "BIGINT": "i8",
    "FLOAT": "f4",
    "DOUBLE": "f8",
}
"""Fixed-length types and their numpy codes, without byte order."""
_TEXTS = frozenset({"CHAR", "VARCHAR"})
_BYTES = frozenset({"BINARY", "VARBINARY"})


def _charset(text: object) -> str:
    try:
        found = codecs.lookup(str(text))
        "".encode(found.name)
    except (LookupError, ValueError):
        raise ValueError(
            "want a character set that is known here, such as UTF-8, UTF-16, ISO-8859-1, windows-1252, GBK, Shift_JIS; "
            f"found {text!r}"
        ) from None
    return str(text)


Charset = Annotated[str, BeforeValidator(_charset)]


class RawOptions(Options):
    """Flink's options of the raw format."""

    charset: Charset = Field("UTF-8", alias="raw.charset")
    """How the text of a STRING column is encoded."""
    endianness: Literal["big-endian", "little-endian"] = Field("big-endian", alias="raw.endianness")
    """Order of the bytes of a number."""


class RawDecoder:
    """Raw records to rows of one column. Immutable, so threads may share it."""

    def __init__(self, options: RawOptions, table: Table) -> None:
        """Refuse tables that the format cannot fill.

        Raises:
            ConfigError: not exactly one physical column, or a type that no bytes stand for; names the column.
        """
        columns = physical_columns("format raw", table)
        if len(columns) != 1:
            listed = ", ".join(name for name, _ in columns)
            raise ConfigError(
                f"format raw: table {table.name} has {len(columns)} physical columns ({listed}), wanted exactly one",
                table.place,
            )
        self._name, self._kind = columns[0]
        known = (*_TEXTS, *_BYTES, *_NUMBERS)
        if self._kind.name not in known:
            listed = ", ".join(["STRING", "BYTES", *sorted(known)])
            raise ConfigError(
                f"format raw: column {self._name} is {self._kind}; known types: {listed}", table.physical[0].place
            )
        self._charset = codecs.lookup(options.charset).name
        self._order = ">" if options.endianness == "big-endian" else "<"
        field = pa.field(self._name, self._kind.arrow, self._kind.nullable)
        self._schema = pa.schema([field, pa.field(POSITION, pa.int64(), nullable=False)])

    def decode(self, raw: pa.RecordBatch | pa.Table) -> Decoded:
        """Rows and rejects of RAW_SCHEMA + `_position`, both in the order of the records."""
        done = [self._piece(values, positions) for values, positions in pieces(raw)]
        return Decoded(
            rows=pa.concat_tables([self._schema.empty_table(), *(piece.rows for piece in done)]),
            rejected=pa.concat_tables([REJECT_SCHEMA.empty_table(), *(piece.rejected for piece in done)]),
        )

    def _piece(self, values: pa.Array, positions: pa.Array) -> Decoded:
        errors: dict[int, str] = {}
        if not self._kind.nullable and values.null_count:
            where = np.flatnonzero(as_mask(values.is_null())).tolist()
            errors |= dict.fromkeys(where, f"column {self._name}: found nothing, wanted {self._kind}")
        if self._kind.name in _BYTES:
            column = values
        elif self._kind.name in _TEXTS:
            column = self._texts(values, errors)
        else:
            column = self._numbers(values, errors)
        bad: Mask = np.zeros(len(values), bool)
        bad[list(errors)] = True
        rows = pa.Table.from_arrays([without(column, bad), without(positions, bad)], schema=self._schema)
        texts = pa.array([f"raw: {errors[place]}" for place in sorted(errors)], pa.string())
        return Decoded(rows, rejects(positions.filter(pa.array(bad)), "decode", texts))

    def _numbers(self, values: pa.Array, errors: dict[int, str]) -> pa.Array:
        """Fixed-length values; where the length is wrong, null and an error."""
        code = np.dtype(self._order + _NUMBERS[self._kind.name])
        null = as_mask(values.is_null())
        data, bounds = byte_view(values)
        lengths = np.diff(bounds)
        wrong = ~null & (lengths != code.itemsize)
        for place in np.flatnonzero(wrong).tolist():
            errors[place] = (
                f"column {self._name}: found {lengths[place]} bytes, wanted {code.itemsize} for {self._kind}"
            )
        right = ~null & ~wrong
        places = bounds[:-1][right, None] + np.arange(code.itemsize)
        numbers = np.zeros(len(values), code.newbyteorder("="))
        numbers[right] = data[places].view(code)[:, 0]
        found = numbers != 0 if self._kind.name == "BOOLEAN" else numbers
        return pa.array(found, self._kind.arrow, mask=~right)

    def _texts(self, values: pa.Array, errors: dict[int, str]) -> pa.Array:
        if self._charset == "utf-8":
            texts = values.view(pa.string())
            wrong = not_utf8(texts, 0)
            errors |= dict.fromkeys(wrong, f"column {self._name}: bad UTF-8")
            return texts
        return self._transcoded(values, errors)

    def _transcoded(self, values: pa.Array, errors: dict[int, str]) -> pa.Array:
        """Slow path: texts in another character set than UTF-8."""
        texts: list[str | None] = []
        for place, value in enumerate(values.to_pylist()):
            try:
                texts.append(None if value is None else value.decode(self._charset))
            except UnicodeError:
                texts.append(None)
                errors[place] = f"column {self._name}: the bytes are no text in {self._charset}"
        return pa.array(texts, pa.string())
