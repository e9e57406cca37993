"""Rows of a table found by key, in Arrow and numpy: the hash tables are Arrow's own (`index_in`).

Why not DuckDB's join: decision 49.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Numbers = npt.NDArray[np.int64]
Arrays = Sequence["pa.Array | pa.ChunkedArray"]


class LookupIndex:
    """The rows of a table by the values of some columns; a null is equal to nothing."""

    def __init__(self, columns: Arrays) -> None:
        self._levels: list[tuple[pa.Array, pa.Array | None]] = []
        codes: Numbers | None = None
        for column in columns:
            whole = _whole(column)
            values = pc.unique(whole).drop_null()
            found = _codes(whole, values)
            pairs = None
            if codes is not None:
                found, pairs = self._paired(codes, found, len(values))
            codes = found
            self._levels.append((values, pairs))
        assert codes is not None, "an index has at least one column"
        order = np.argsort(codes, kind="stable")
        self._keyless: Numbers = np.flatnonzero(codes < 0)
        order = order[codes[order] >= 0]
        groups = int(codes.max()) + 1 if len(codes) else 0
        self._rows: Numbers = order.astype(np.int64)
        self._counts: Numbers = np.bincount(codes[order], minlength=groups).astype(np.int64)
        self._starts: Numbers = np.cumsum(self._counts) - self._counts
        self.is_unique = bool((self._counts <= 1).all())

    @staticmethod
    def _paired(first: Numbers, second: Numbers, width: int) -> tuple[Numbers, pa.Array]:
        """Codes of pairs of codes, without gaps, and the pairs that they stand for."""
        both = np.where((first >= 0) & (second >= 0), first * width + second, -1)
        pairs = np.unique(both[both >= 0])
        known = pa.array(pairs)
        return _codes(pa.array(both), known), known

    def _find(self, columns: Arrays) -> Numbers:
        """The group of each row of `columns`, -1 for those that are in none."""
        codes: Numbers | None = None
        for column, (values, pairs) in zip(columns, self._levels, strict=True):
            found = _codes(column, values)
            if codes is not None and pairs is not None:
                both = np.where((codes >= 0) & (found >= 0), codes * len(values) + found, -1)
                found = _codes(pa.array(both), pairs)
            codes = found
        assert codes is not None, "an index has at least one column"
        return codes

    def find_one(self, columns: Arrays) -> Numbers:
        """The row of each key, -1 where there is none; only while `is_unique`."""
        codes = self._find(columns)
        if not len(self._rows):
            return np.full(len(codes), -1, np.int64)
        return np.where(codes >= 0, self._rows[self._starts[codes]], -1)

    def find_all(self, columns: Arrays) -> tuple[Numbers, Numbers]:
        """Pairs (place in `columns`, row): in the order of the places, and of the rows within one."""
        codes = self._find(columns)
        places = np.flatnonzero(codes >= 0)
        codes = codes[places]
        counts = self._counts[codes]
        ends = np.cumsum(counts)
        total = int(ends[-1]) if len(ends) else 0
        steps = np.arange(total, dtype=np.int64) - np.repeat(ends - counts, counts)
        return np.repeat(places, counts), self._rows[np.repeat(self._starts[codes], counts) + steps]

    def last_rows(self) -> Numbers:
        """The last row of every key and every row with a null in its key, in the table's order."""
        return np.sort(np.concatenate([self._rows[self._starts + self._counts - 1], self._keyless]))


def _whole(column: "pa.Array | pa.ChunkedArray") -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _codes(column: "pa.Array | pa.ChunkedArray", values: pa.Array) -> Numbers:
    """The place of each value among `values`, -1 for a null or another one."""
    found = pc.fill_null(pc.index_in(column, value_set=values, skip_nulls=True), -1)
    codes: Numbers = _whole(found).to_numpy().astype(np.int64)
    return codes
