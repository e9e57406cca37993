"""Flat JSON objects to columns by compiled loops: what they do not take is left to the other readers.

Needs llvmlite (`pip install 'vector-assets[native]'`); without it, or with VECTOR_ASSETS_NATIVE=off, the other readers
read everything, with the same result.
"""

import logging
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vector_assets.clients import native
from vector_assets.engine import env
from vector_assets.engine.errors import ConfigError
from vector_assets.formats import json_kernel as at
from vector_assets.formats.grammar import byte_view, differ, not_utf8, spelled
from vector_assets.formats.json_code import LANES

log = logging.getLogger(__name__)
Longs = npt.NDArray[np.int64]

MANY = 300_000
"""From so many documents on it pays to compile the loops (0.4 s of CPU): a million take 1.5 s of CPU less."""
_UNITS = {"ms": 3, "us": 6}


@dataclass(frozen=True, slots=True)
class Moments:
    """A column of timestamps in texts: `separator` stands between date and clock."""

    kind: pa.TimestampType
    separator: str

    @property
    def rules(self) -> int:
        """What the loops want to know."""
        zone = ord("Z") if self.kind.tz else 0
        return ord(self.separator) | zone << 8 | _UNITS[self.kind.unit] << 16


@dataclass(frozen=True, slots=True)
class JsonText:
    """A column of values of any kind, as they are written but for white space around their parts."""


Reading: TypeAlias = pa.DataType | Moments | JsonText
"""What a column is read as: int64, float64, bool, string, timestamps, or JSON text."""
_KINDS: dict[Reading, int] = {
    pa.int64(): at.INTEGER,
    pa.float64(): at.DOUBLE,
    pa.bool_(): at.BOOLEAN,
    pa.string(): at.TEXT,
    JsonText(): at.JSON,
}


class NativeReader:
    """Reads documents by columns. Thread-safe.

    With `strict`, left out are also documents with a member that no column is for, with a null, or with a number that
    its double does not give back.
    """

    def __init__(self, columns: Sequence[tuple[str, Reading]], *, strict: bool) -> None:
        self._names = [name for name, _ in columns]
        self._readings = [reading for _, reading in columns]
        self._strict = strict
        self._seen = 0
        self._lock = threading.Lock()
        self.is_able = 0 < len(columns) <= at.MOST_COLUMNS and all(map(_is_plain, self._names))
        self.is_able &= all(isinstance(reading, Moments) or reading in _KINDS for reading in self._readings)

    def is_due(self, documents: int) -> bool:
        """So many documents more, after all that came before, should be read this way.

        Raises:
            ConfigError: VECTOR_ASSETS_NATIVE=on, and llvmlite does not work here.
        """
        if not self.is_able:
            return False
        choice = env.native()
        if choice == "off":
            return False
        with self._lock:
            self._seen += documents
            # who else has compiled something, such as a source with a large backlog, has seen that it pays
            if choice == "auto" and self._seen < MANY and "llvmlite.binding" not in sys.modules:
                return False
        return _works(is_wanted=choice == "on")

    def read(self, documents: pa.Array) -> tuple[pa.Table, Longs, Longs]:
        """Columns of the documents that are taken, their places, and the places of the others, both in order."""
        data, bounds = byte_view(documents)
        job = _Job(self._names, self._readings, data, bounds, strict=self._strict)
        count = at.load().read(bounds.ctypes.data, len(documents), job.address)
        if job.has_high_bytes and not_utf8(documents.view(pa.string()), 0):
            return self._nothing(), np.zeros(0, np.int64), np.arange(len(documents))
        table, places = pa.table(job.columns(count), self._names), job.places[:count]
        if self._strict and job.inexact:
            kept = np.ones(count, np.bool_)
            kept[np.concatenate(job.inexact)] = False
            table, places = table.filter(pa.array(kept)), places[kept]
        others = np.ones(len(documents), np.bool_)
        others[places] = False
        return table, places, np.flatnonzero(others)

    def _nothing(self) -> pa.Table:
        return pa.table([pa.array([], _type_of(reading)) for reading in self._readings], self._names)


class _Job:
    """The memory that one call of the loops reads and writes."""

    def __init__(
        self, names: Sequence[str], readings: Sequence[Reading], data: npt.NDArray[np.uint8],
        bounds: npt.NDArray[np.int32], *, strict: bool,
    ) -> None:  # fmt: skip
        rows = len(bounds) - 1
        self._readings, self._data, self._strict = readings, data, strict
        self.places, self._held = np.empty(rows, np.int64), np.empty(rows, np.int64)
        self._values = [_room(reading, rows) for reading in readings]
        self._ends = [np.zeros(rows + 1 if _is_text(reading) else 1, np.int32) for reading in readings]
        doubles = sum(reading == pa.float64() for reading in readings)
        self._long, self._counters = np.empty((rows * doubles + 1, at.LONG_WORDS), np.int64), np.zeros(2, np.int64)
        keys = [np.frombuffer(f'"{name}"'.encode(), np.uint8) for name in names]
        columns = {
            at.KEYS: [key.ctypes.data for key in keys],
            at.KEY_BYTES: [len(key) for key in keys],
            at.KINDS: [at.MOMENT if isinstance(each, Moments) else _KINDS[each] for each in readings],
            at.PARAMETERS: [each.rules if isinstance(each, Moments) else 0 for each in readings],
            at.VALUES: [values.ctypes.data for values in self._values],
            at.ENDS: [ends.ctypes.data for ends in self._ends],
        }
        lists = {number: np.array(column, np.int64) for number, column in columns.items()}
        words = np.zeros(at.WORDS, np.int64)
        for number, each in lists.items():
            words[number] = each.ctypes.data
        words[[at.COUNT, at.STRICT, at.PLACES, at.HELD]] = (
            len(names), strict, self.places.ctypes.data, self._held.ctypes.data
        )  # fmt: skip
        words[[at.LONG, at.LONG_COUNT, at.HIGH]] = (
            self._long.ctypes.data, self._counters.ctypes.data, self._counters[1:].ctypes.data
        )  # fmt: skip
        words[[at.DATA, at.LIMIT]] = data.ctypes.data, data.ctypes.data + len(data)
        self.inexact: list[Longs] = []
        self._words, self._kept = words, (keys, lists, bounds)
        self.address: int = words.ctypes.data

    @property
    def has_high_bytes(self) -> bool:
        """Some byte above 127 was seen."""
        return bool(self._counters[1])

    def columns(self, count: int) -> list[pa.Array]:
        """The columns of so many rows."""
        self._convert_long(count)
        everything = (1 << len(self._readings)) - 1
        held = self._held[:count]
        is_whole = bool((held == everything).all())
        return [
            self._column(number, count, None if is_whole else (held >> number & 1).astype(np.bool_))
            for number in range(len(self._readings))
        ]

    def _column(self, number: int, count: int, held: npt.NDArray[np.bool_] | None) -> pa.Array:
        reading, values = self._readings[number], self._values[number]
        nulls = None
        if held is not None and not held.all():
            nulls = pa.py_buffer(np.packbits(held, bitorder="little"))
        if reading == pa.bool_():
            return pa.array(values[:count].view(np.bool_), mask=None if nulls is None else ~held)  # type: ignore[operator]
        if _is_text(reading):
            ends = self._ends[number][: count + 1]
            texts = pa.allocate_buffer(int(ends[-1]) + LANES)
            data, limit, blanks = self._words[[at.DATA, at.LIMIT, at.BLANKS]].tolist()
            if blanks and isinstance(reading, JsonText):
                at.load().squeeze(values.ctypes.data, ends.ctypes.data, count, data, texts.address)
            else:
                at.load().gather(values.ctypes.data, ends.ctypes.data, count, data, limit, texts.address)
            return pa.Array.from_buffers(pa.string(), count, [nulls, pa.py_buffer(ends), texts.slice(0, int(ends[-1]))])
        return pa.Array.from_buffers(_type_of(reading), count, [nulls, pa.py_buffer(values[:count])])

    def _convert_long(self, count: int) -> None:
        """Numbers of many digits, or with an exponent: by Arrow."""
        found = self._long[: int(self._counters[0])]
        for number in np.unique(found[:, 1]).tolist():
            rows, _, start, end = found[found[:, 1] == number].T
            texts = spelled(self._data, start, end)
            doubles = texts.cast(pa.float64())
            self._values[number][rows] = np.asarray(doubles)
            if self._strict:
                other = differ(doubles, texts)
                if other.any():
                    self.inexact.append(rows[other])


def _is_plain(name: str) -> bool:
    """Nothing in it is spelled otherwise in JSON."""
    return name.isprintable() and not set(name) & {'"', "\\"}


def _is_text(reading: Reading) -> bool:
    return isinstance(reading, JsonText) or bool(reading == pa.string())


def _type_of(reading: Reading) -> pa.DataType:
    if isinstance(reading, JsonText):
        return pa.string()
    return reading.kind if isinstance(reading, Moments) else reading


def _room(reading: Reading, rows: int) -> npt.NDArray[Any]:
    """Where the values of a column are put, in memory that Arrow counts."""
    if _is_text(reading):
        return np.empty(rows, np.int32)
    if reading == pa.bool_():
        return np.zeros(rows, np.uint8)
    kind = np.dtype(np.float64 if reading == pa.float64() else np.int64)
    room = np.frombuffer(pa.allocate_buffer(rows * kind.itemsize), kind)
    room.fill(0)
    return room


@cache
def _works(*, is_wanted: bool) -> bool:
    """True where documents can be read this way; what keeps them from it is logged, or an error for who wants it."""
    reason = native.missing()
    if not reason:
        try:
            at.load()
            return True
        except (ImportError, RuntimeError, OSError) as error:
            reason = f"llvmlite does not work here: {error}"
            if not is_wanted:
                log.warning(
                    "json: documents are read the slower way: %s (VECTOR_ASSETS_NATIVE=off does not try)", reason
                )
    if is_wanted:
        raise ConfigError(f"json: documents cannot be read natively: {reason}")
    return False
