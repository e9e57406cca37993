"""Rows of a SELECT to Arrow: the text protocol's cells, found for all rows of a block at once.

The values have the same natural types as those of `mysql_image`, so that a snapshot and the binlog agree.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pymysql
from pymysql.connections import MySQLResult
from pymysql.constants import COMMAND

from vector_assets.clients.mysql import Connection, Login, translated
from vector_assets.clients.mysql_cells import Bytes, Ints, gather
from vector_assets.clients.mysql_schema import GEOMETRIES, MySqlColumn, quote
from vector_assets.engine.errors import PlanError

_BLOCK_BYTES = 1 << 20
_WHOLE = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint", "year"})
_TEXT = frozenset({"char", "varchar", "tinytext", "text", "mediumtext", "longtext", "enum", "set", "json"})
_MOST_PACKET = 0xFFFFFF
_NULL = 0xFB
_TIME = r"^(?P<sign>-?)(?P<h>\d+):(?P<m>\d\d):(?P<s>\d\d)(?:\.(?P<f>\d+))?$"


def expression(column: MySqlColumn) -> str:
    """How the column is asked for: FLOAT is shown rounded unless it is made a DOUBLE."""
    return f"({quote(column.name)} + 0e0)" if column.type == "float" else quote(column.name)


class Select:
    """One SELECT, read in blocks; the connection is its own."""

    def __init__(self, login: Login, statement: str, values: Sequence[Any] = ()) -> None:
        self._login = login
        with translated(login.where):
            self._connection = Connection(**login.settings())
            self._statement = self._connection.cursor().mogrify(statement, tuple(values) or None)

    def blocks(self, columns: Sequence[MySqlColumn]) -> Iterator[tuple[list[Any], list[int]]]:
        """Columns in their natural types, and how many dates of each were nulled.

        Raises:
            VectorAssetsError: as `translated`.
        """
        with translated(self._login.where):
            for data, starts in self._packets():
                found, nulled = [], []
                at = starts
                for column in columns:
                    cells, lengths, at = _cells(data, at)
                    values, wrong = natural(column, data, cells, lengths)
                    found.append(values)
                    nulled.append(wrong)
                yield found, nulled

    def _packets(self) -> Iterator[tuple[Bytes, Ints]]:
        """Blocks of whole rows, with the places where rows begin."""
        self._connection._execute_command(COMMAND.COM_QUERY, self._statement)
        result = MySQLResult(self._connection)
        result.init_unbuffered_query()
        # or its end would read the rows
        result.unbuffered_active = False
        stream = self._connection._rfile
        rest, is_over = b"", False
        while not is_over:
            block = stream.read1(_BLOCK_BYTES)
            if not block:
                raise pymysql.OperationalError(2013, "Lost connection to MySQL server during query")
            buffer = rest + block if rest else block
            starts, used, is_over = _rows(buffer)
            if starts:
                yield np.frombuffer(buffer, np.uint8), np.array(starts, np.int64)
            rest = buffer[used:]

    def close(self) -> None:
        """Give back the connection, however much is left to be read; idempotent."""
        self._connection._force_close()


def _rows(buffer: bytes) -> tuple[list[int], int, bool]:
    """Where the packets of whole rows begin, how much of the buffer they are, and whether the last one was seen."""
    starts: list[int] = []
    at, end = 0, len(buffer)
    while at + 4 < end:
        size = buffer[at] | buffer[at + 1] << 8 | buffer[at + 2] << 16
        after = at + 4 + size
        if size == _MOST_PACKET:
            raise PlanError("a row of 16 MB or more: it cannot be read by a snapshot")
        if after > end:
            break
        first = buffer[at + 4] if size else 0
        if first == 0xFE and size < 9:
            return starts, after, True
        if first == 0xFF:
            raise pymysql.OperationalError(
                int.from_bytes(buffer[at + 5 : at + 7], "little"), buffer[at + 7 : after].decode(errors="replace")
            )
        starts.append(at + 4)
        at = after
    return starts, at, False


def _cells(data: Bytes, at: Ints) -> tuple[Ints, Ints, Ints]:
    """The cells (position and length) of the column whose lengths stand at `at`, and where the next column does."""
    lengths = data[at].astype(np.int64)
    places = at + 1
    for mark, size in ((0xFC, 2), (0xFD, 3), (0xFE, 8)):
        is_long = np.flatnonzero(data[at] == mark)
        if len(is_long):
            value = np.zeros(len(is_long), np.int64)
            for number in range(size):
                value |= data[at[is_long] + 1 + number].astype(np.int64) << (8 * number)
            lengths[is_long] = value
            places[is_long] += size
    is_null = data[at] == _NULL
    lengths[is_null] = 0
    return np.where(is_null, -1, places), lengths, places + lengths


def natural(column: MySqlColumn, data: Bytes, at: Ints, lengths: Ints) -> tuple[Any, int]:
    """The cells of a column in its natural type, and how many dates of it were nulled."""
    kind = column.type
    if kind in GEOMETRIES:
        return gather(data, np.where(at >= 0, at + 4, -1), lengths - 4), 0
    if kind in _TEXT:
        return gather(data, at, lengths, pa.string()), 0
    text = gather(data, at, lengths, pa.string())
    if kind in _WHOLE:
        return text.cast(pa.uint64() if column.is_unsigned and kind != "year" else pa.int64()), 0
    if kind == "float":
        return text.cast(pa.float64()).cast(pa.float32(), safe=False), 0
    if kind == "double":
        return text.cast(pa.float64()), 0
    if kind in {"decimal", "numeric"}:
        is_wide = (column.precision or 0) > 38
        return (text if is_wide else text.cast(pa.decimal128(column.precision or 10, column.scale or 0))), 0
    if kind == "time":
        return _durations(text), 0
    if kind in {"date", "datetime", "timestamp"}:
        return _dates(kind, text)
    return gather(data, at, lengths), 0


def _dates(kind: str, text: Any) -> tuple[Any, int]:
    is_zero = pc.match_substring_regex(text, r"^0000-|-00")
    wrong = int(pc.sum(is_zero).as_py() or 0)
    kept = pc.if_else(is_zero, None, text) if wrong else text
    target = pa.date32() if kind == "date" else pa.timestamp("us", "UTC" if kind == "timestamp" else None)
    if kind == "timestamp":
        return kept.cast(pa.timestamp("us")).cast(target), wrong
    return kept.cast(target), wrong


def _durations(text: Any) -> Any:
    parts = pc.extract_regex(text, _TIME)
    hours, minutes, seconds = (pc.struct_field(parts, name).cast(pa.int64()) for name in ("h", "m", "s"))
    padded = pc.utf8_slice_codeunits(pc.utf8_rpad(pc.struct_field(parts, "f"), 6, "0"), 0, 6)
    total = pc.add(
        pc.multiply(pc.add(pc.multiply(pc.add(pc.multiply(hours, 60), minutes), 60), seconds), 1_000_000),
        padded.cast(pa.int64()),
    )
    return pc.if_else(pc.equal(pc.struct_field(parts, "sign"), "-"), pc.negate(total), total).cast(pa.duration("us"))
