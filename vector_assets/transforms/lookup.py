"""A lookup join: every row of a batch with the rows of a dimension table that have its key.

The order of the rows stays, with the rows of one record in the order of the dimension table. A row that takes another
one away (`-U`, `-D`) looks nothing up: it needs its key only, and the dimension table may have changed since.
"""

import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.engine.core import KIND, POSITION, Decoded, RowKind, rejects
from vector_assets.engine.errors import PlanError
from vector_assets.transforms.duck import BatchQuery
from vector_assets.transforms.lookup_cache import Loaded, LookupCache
from vector_assets.transforms.lookup_index import LookupIndex, Numbers
from vector_assets.transforms.lookup_spill import SpilledTable
from vector_assets.transforms.select import Select

_NAME = re.compile(r'"((?:[^"]|"")+)"')
_TAKING = pa.array([RowKind.UPDATE_BEFORE, RowKind.DELETE], pa.int8())
_PAIR = "_lookup_pair"
_PIECE_ROWS = 200_000
"""Most pairs that a residual condition is tried on at once."""


class LookupKey(NamedTuple):
    """One equality: an expression over the probe rows, one over the dimension table, and the type of both."""

    probe: str
    table: str
    kind: pa.DataType


@dataclass(frozen=True, slots=True)
class LookupPlan:
    """What a lookup join does. `keys` has one entry at least.

    `carried` are the probe's columns that are wanted afterwards; `added` the dimension table's, as (its name, its name
    in the result). `residual` is a condition over both, by the result's names. Without `is_left`, rows that find
    nothing are left out; with `replaces`, such a row deletes its key instead, because its predecessor may be there.
    """

    keys: tuple[LookupKey, ...]
    carried: tuple[str, ...]
    added: tuple[tuple[str, str], ...]
    residual: str | None = None
    is_left: bool = False
    replaces: bool = False


@dataclass(frozen=True, slots=True)
class _Matches:
    """Pairs (probe row, row of `found`) in order; with `is_whole`, exactly one for each probe row, -1 for none."""

    probe: Numbers | None
    rows: Numbers
    found: pa.Table


class LookupTransform:
    """One lookup join; threads may share it. `table` is the name under which versions are recorded."""

    def __init__(self, plan: LookupPlan, table: str, cache: LookupCache, *, version: str | None = None) -> None:
        self._plan = plan
        self._table = table
        self._cache = cache
        self._version = version
        self._probe_names = [_plain(key.probe) for key in plan.keys]
        self._guarded = tuple((_guarded(key.probe), f"key of {table}") for key in plan.keys)
        self._keys = BatchQuery(Select(self._guarded, "source", None))
        self._residual = (
            BatchQuery(Select(((plan.residual, f"ON of {table}"),), "source", None)) if plan.residual else None
        )
        self._lock = threading.Lock()
        self._indexed: tuple[str, LookupIndex] | None = None
        self._local = threading.local()

    def at(self, versions: Mapping[str, str]) -> "LookupTransform":
        """The same over the version that a batch was joined with, if that is recorded."""
        if self._table not in versions:
            return self
        return LookupTransform(self._plan, self._table, self._cache, version=versions[self._table])

    def apply(self, rows: pa.Table) -> Decoded:
        """The joined rows; `versions` says which rows of the dimension table they were joined with.

        Raises:
            PlanError: the dimension table is not there, does not fit or is too large.
            FatalError: it cannot be loaded.
        """
        loaded = self._cache.at(self._version) if self._version is not None else self._cache.current()
        rows, keys, errors = self._probe_keys(rows)
        matches = self._matches(loaded, rows, keys)
        matches, wrong = self._kept(rows, matches)
        result, filtered = self._joined(rows, matches)
        errors |= wrong
        if wrong:
            bad = pa.array(sorted(wrong), pa.int64())
            result = result.filter(pc.invert(pc.is_in(result[POSITION], bad)))
            filtered = self._left_out(rows, result, bad)
        places = sorted(errors)
        return Decoded(
            rows=result,
            rejected=rejects(places, "transform", pa.array([errors[place] for place in places], pa.string())),
            filtered=filtered,
            versions={self._table: loaded.version},
        )

    def _left_out(self, rows: pa.Table, result: pa.Table, bad: pa.Array) -> int:
        came = rows[POSITION].filter(pc.invert(pc.is_in(rows[POSITION], bad)))
        return len(pc.unique(came)) - len(pc.unique(result[POSITION]))

    def _probe_keys(self, rows: pa.Table) -> tuple[pa.Table, list[pa.ChunkedArray], dict[int, str]]:
        """The rows whose keys can be computed, their keys, and why the others cannot."""
        takes = _taking(rows)
        names = [name for name in self._probe_names if name in rows.column_names]
        errors: dict[int, str] = {}
        if len(names) == len(self._plan.keys):
            keys = [rows[name] for name in names]
        else:
            made, errors = self._keys.run(rows, [POSITION])
            if errors:
                rows = rows.filter(pc.invert(pc.is_in(rows[POSITION], pa.array(list(errors), pa.int64()))))
                takes = _taking(rows)
            keys = made.columns[: len(self._plan.keys)]
        keys = [key.cast(part.kind) for key, part in zip(keys, self._plan.keys, strict=True)]
        if takes is not None:
            nothing = pa.scalar(None, keys[0].type)
            keys[0] = pc.if_else(pa.array(takes), nothing, keys[0])
        return rows, keys, errors

    def _matches(self, loaded: Loaded, rows: pa.Table, keys: Sequence[pa.ChunkedArray]) -> _Matches:
        if loaded.rows is None:
            columns = [name for name, _ in self._plan.added]
            texts = [(key, part.table) for key, part in zip(keys, self._plan.keys, strict=True)]
            probe, found = self._spilled(loaded).find(texts, columns)
            wanted = pa.schema([self._cache.schema.field(name) for name in columns])
            return _Matches(probe, np.arange(len(probe), dtype=np.int64), found.cast(wanted))
        index = self._index(loaded)
        found = loaded.rows.select([name for name, _ in self._plan.added])
        if index.is_unique:
            return _Matches(None, index.find_one(keys), found)
        return _Matches(*index.find_all(keys), found)

    def _index(self, loaded: Loaded) -> LookupIndex:
        """The index over the loaded rows, made once for each version."""
        with self._lock:
            if self._indexed is None or self._indexed[0] != loaded.version:
                assert loaded.rows is not None, "only rows in memory have an index"
                self._indexed = (loaded.version, LookupIndex(self._table_keys(loaded.rows)))
            return self._indexed[1]

    def _table_keys(self, rows: pa.Table) -> list[pa.ChunkedArray]:
        """The dimension table's side of the equalities.

        Raises:
            PlanError: an expression fails for a row of the dimension table.
        """
        names = [_plain(key.table) for key in self._plan.keys]
        if all(name in rows.column_names for name in names):
            keys = [rows[name] for name in names]
        else:
            numbered = rows.append_column(POSITION, pa.array(np.arange(rows.num_rows, dtype=np.int64)))
            texts = tuple((key.table, f"key of {self._table}") for key in self._plan.keys)
            made, errors = BatchQuery(Select(texts, "source", None)).run(numbered, [POSITION])
            if errors:
                place, reason = next(iter(sorted(errors.items())))
                raise PlanError(f"dimension table {self._table}: row {place + 1}: {reason}")
            keys = made.columns[: len(names)]
        return [key.cast(part.kind) for key, part in zip(keys, self._plan.keys, strict=True)]

    def _spilled(self, loaded: Loaded) -> SpilledTable:
        """This thread's own connection to the version's file."""
        held: tuple[str, SpilledTable] | None = getattr(self._local, "spilled", None)
        if held is None or held[0] != loaded.version:
            if held is not None:
                held[1].close()
            held = (loaded.version, SpilledTable(loaded.path))
            self._local.spilled = held
        return held[1]

    def _kept(self, rows: pa.Table, matches: _Matches) -> tuple[_Matches, dict[int, str]]:
        """The pairs that meet the rest of the ON condition, and the records for which it fails."""
        if self._residual is None:
            return matches, {}
        probe, found = matches.probe, matches.rows
        if probe is None:
            probe = np.flatnonzero(found >= 0)
            found = found[probe]
        kept = [np.zeros(0, np.int64)]
        errors: dict[int, str] = {}
        for start in range(0, len(probe), _PIECE_ROWS):
            end = start + _PIECE_ROWS
            pairs = self._assembled(rows, probe[start:end], found[start:end], matches.found)
            pairs = pairs.append_column(_PAIR, pa.array(np.arange(start, start + pairs.num_rows, dtype=np.int64)))
            result, wrong = self._residual.run(pairs, [_PAIR])
            errors |= wrong
            holds = pc.fill_null(result.column(0), False)  # noqa: FBT003 - Arrow's own signature
            kept.append(result.column(1).filter(holds).to_numpy())
        chosen = np.sort(np.concatenate(kept))
        return _Matches(probe[chosen], found[chosen], matches.found), errors

    def _joined(self, rows: pa.Table, matches: _Matches) -> tuple[pa.Table, int]:
        """The rows of the result, and how many probe rows gave none."""
        probe, found = matches.probe, matches.rows
        lonely = found < 0 if probe is None else np.bincount(probe, minlength=rows.num_rows) == 0
        stays = self._staying(rows, lonely)
        if probe is None:
            keep = ~lonely | stays
            if not keep.all():
                probe = np.flatnonzero(keep)
                found = found[probe]
        elif stays.any():
            alone = np.flatnonzero(stays)
            probe = np.concatenate([probe, alone])
            found = np.concatenate([found, np.full(len(alone), -1, np.int64)])
            order = np.argsort(probe, kind="stable")
            probe, found = probe[order], found[order]
        result = self._assembled(rows, probe, found, matches.found)
        if self._plan.replaces and not self._plan.is_left and KIND in rows.column_names:
            gone = pa.array(found < 0)
            kinds = pc.if_else(gone, pa.scalar(int(RowKind.DELETE), pa.int8()), result[KIND])
            result = result.set_column(result.schema.get_field_index(KIND), KIND, kinds)
        return result, int((lonely & ~stays).sum())

    def _staying(
        self, rows: pa.Table, lonely: "np.ndarray[tuple[int], np.dtype[np.bool_]]"
    ) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
        """Which of the rows that found nothing are rows of the result all the same."""
        if self._plan.is_left or self._plan.replaces:
            return lonely
        takes = _taking(rows)
        return lonely & takes if takes is not None else np.zeros(len(lonely), np.bool_)

    def _assembled(self, rows: pa.Table, probe: Numbers | None, found: Numbers, table: pa.Table) -> pa.Table:
        hidden = [name for name in (KIND, POSITION) if name in rows.column_names]
        mine = rows.select([*self._plan.carried, *hidden])
        mine = mine if probe is None else mine.take(pa.array(probe))
        places = pa.array(found, mask=found < 0)
        for (name, shown), values in zip(self._plan.added, table.columns, strict=True):
            field = pa.field(shown, table.schema.field(name).type)
            mine = mine.append_column(field, values.take(places))
        return mine.select([*self._plan.carried, *(shown for _, shown in self._plan.added), *hidden])


def _plain(text: str) -> str | None:
    """The column that an expression is, None when it is more."""
    match = _NAME.fullmatch(text)
    return match[1].replace('""', '"') if match else None


def _guarded(text: str) -> str:
    """The expression for rows that look something up, NULL for those that take another one away."""
    taking = f"{RowKind.UPDATE_BEFORE:d}, {RowKind.DELETE:d}"
    return f"CASE WHEN {KIND} IN ({taking}) THEN NULL ELSE ({text}) END"


def _taking(rows: pa.Table) -> "np.ndarray[tuple[int], np.dtype[np.bool_]] | None":
    """Which rows take another one away; None when rows are inserts only."""
    if KIND not in rows.column_names:
        return None
    taking: np.ndarray[tuple[int], np.dtype[np.bool_]] = pc.is_in(rows[KIND], _TAKING).to_numpy()
    return taking
