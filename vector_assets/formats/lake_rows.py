"""Valid JSON documents to the columns of a lake table and to what these do not hold: level by level, not row by row."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.formats.grammar import Mask
from vector_assets.formats.lake_fields import LakeField, Path, inner_paths
from vector_assets.formats.lake_scan import Ints, Members, Scan
from vector_assets.formats.lake_values import Column, read, unquoted

_OBJECT = ord("{")
_LAST = np.iinfo(np.int64).max
UNKNOWN = -1
"""Field number of members that no field is for."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Where members go. Targets are numbers: fields first, then expanded objects, then `ignored`, then `unknown`.

    `keys` of a depth are all that are known there; `targets[object, key]` says where a member of an expanded object
    goes, the last key standing for all others.
    """

    fields: tuple[LakeField, ...]
    inner: tuple[Path, ...]
    keys: tuple[pa.Array, ...]
    targets: tuple[npt.NDArray[np.int64], ...]

    @property
    def ignored(self) -> int:
        """The target of members that the user does not want."""
        return len(self.fields) + len(self.inner)

    @property
    def unknown(self) -> int:
        """The target of members that no field is for."""
        return self.ignored + 1


def plan_of(fields: Sequence[LakeField], ignored: Sequence[Path] = ()) -> Plan:
    """The plan for fields and paths to leave out."""
    shadows = [LakeField(path, f"ignored {number}") for number, path in enumerate(ignored)]
    inner = inner_paths([*fields, *shadows])
    places: dict[Path, int] = {path: len(fields) + number for number, path in enumerate(inner)}
    places |= {each.path: number for number, each in enumerate(fields)}
    places |= dict.fromkeys(ignored, len(fields) + len(inner))
    keys, targets = [], []
    for depth in range(max((len(path) for path in inner), default=0) + 1):
        here = [path for path in places if len(path) == depth + 1]
        known = sorted({path[-1] for path in here})
        table = np.full((len(inner), len(known) + 1), len(fields) + len(inner) + 1)
        for path in here:
            table[inner.index(path[:-1]), known.index(path[-1])] = places[path]
        keys.append(pa.array(known, pa.string()))
        targets.append(table)
    return Plan(tuple(fields), tuple(inner), tuple(keys), tuple(targets))


@dataclass(frozen=True, slots=True)
class Strays:
    """Values that no column holds, members of the expanded object number `holder` of the plan.

    `field` is their target in the plan, or UNKNOWN; `key` and `value` are as written; `drift` is false for those that a
    column holds in another spelling, and for nulls of the unusual kind.
    """

    holder: int
    field: int
    doc: Ints
    place: Ints
    key: pa.Array
    value: pa.Array
    drift: Mask


@dataclass(frozen=True, slots=True)
class Read:
    """Columns of all documents, the text of `_rescued` (null where nothing is), and the documents that drift."""

    columns: list[pa.Array]
    rescued: pa.Array
    drifting: Mask
    strays: list[Strays]


@dataclass(slots=True)
class _Work:
    """What is found while going down."""

    columns: dict[int, pa.Array] = field(default_factory=dict)
    strays: list[Strays] = field(default_factory=list)
    present: dict[int, Ints] = field(default_factory=dict)
    held_at: dict[int, Ints] = field(default_factory=dict)


class RowReader:
    """Reads valid documents by a plan. Immutable."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._parents = np.array([plan.inner.index(each.path[:-1]) if each.path else 0 for each in plan.fields], int)

    def read(self, documents: pa.Array) -> Read:
        """The columns of documents that are one JSON object each."""
        plan, scan = self._plan, Scan(documents)
        if len(plan.fields) == 1 and not plan.fields[0].path:
            none = np.zeros(scan.count, bool)
            return Read([scan.texts(scan.documents())], pa.nulls(scan.count, pa.string()), none, [])
        work = _Work(present={0: np.arange(scan.count)})
        labels = np.zeros(scan.count, np.int64)
        for depth in range(1, len(plan.keys) + 1):
            labels = self._level(scan, depth, labels, work)
            if not (labels >= 0).any():
                break
        columns = [
            work.columns[number] if number in work.columns else pa.nulls(scan.count, each.type.arrow)
            for number, each in enumerate(plan.fields)
        ]
        self._note_absent(scan, columns, work)
        drifting = np.zeros(scan.count, bool)
        for stray in work.strays:
            drifting[stray.doc[stray.drift]] = True
        return Read(columns, self._rescued(scan, columns, work), drifting, work.strays)

    def _level(self, scan: Scan, depth: int, labels: Ints, work: _Work) -> Ints:
        """Members of the expanded objects of a depth; which objects of the next depth are expanded, and as what."""
        plan = self._plan
        members = scan.members(depth)
        objects = labels[members.holder] if len(members.holder) else members.holder
        if len(objects) and (objects < 0).any():
            members, objects = members.at(objects >= 0), objects[objects >= 0]
        targets = self._targets(scan, depth, members, objects)
        order = np.argsort(targets.astype(np.int16), kind="stable")
        bounds = np.searchsorted(targets[order], np.arange(plan.unknown + 2))
        following = np.full(len(scan.opens(depth + 1)), -1, np.int64)
        for target in np.unique(targets):
            chosen = order[bounds[target] : bounds[target + 1]]
            if target == plan.ignored:
                continue
            if target == plan.unknown:
                for holder in np.unique(objects[chosen]):
                    self._stray(scan, members.at(chosen[objects[chosen] == holder]), int(holder), UNKNOWN, work)
                continue
            found = _last_of_each(members.at(chosen))
            if target < len(plan.fields):
                self._field(scan, found, int(target), work)
            else:
                self._inner(scan, found, int(target) - len(plan.fields), following, work)
        return following

    def _targets(self, scan: Scan, depth: int, members: Members, objects: Ints) -> Ints:
        known, table = self._plan.keys[depth - 1], self._plan.targets[depth - 1]
        texts = scan.texts(members.key)
        codes = pc.index_in(texts, value_set=known)
        if scan.has_escapes:
            escaped = pc.match_substring(texts, "\\")
            if pc.any(escaped).as_py():
                quoted = pc.binary_join_element_wise('"', texts.filter(escaped), '"', "")
                names = unquoted(quoted, escaped=True)
                codes = pc.replace_with_mask(codes, escaped, pc.index_in(names, value_set=known))
        at = np.asarray(pc.fill_null(codes, len(known)))
        found: Ints = table[objects, at]
        return found

    def _field(self, scan: Scan, found: Members, number: int, work: _Work) -> None:
        each = self._plan.fields[number]
        column = read(each, scan.texts(found.value), found.head, escaped=scan.has_escapes)
        work.columns[number] = _scattered(column.values, found.doc, scan.count)
        work.held_at[number] = found.doc
        self._note(scan, found, number, column, work)

    def _note(self, scan: Scan, found: Members, number: int, column: Column, work: _Work) -> None:
        each = self._plan.fields[number]
        odd = column.misfit | column.inexact
        if each.nulls == "absent":
            odd = odd | column.null
        if odd.any():
            self._stray(scan, found.at(odd), int(self._parents[number]), number, work, drift=column.misfit[odd])

    def _inner(self, scan: Scan, found: Members, inner: int, following: Ints, work: _Work) -> None:
        is_object = found.head == _OBJECT
        if not is_object.all():
            parent = self._plan.inner.index(self._plan.inner[inner][:-1])
            other = found.at(~is_object)
            self._stray(scan, other, parent, len(self._plan.fields) + inner, work, drift=other.head != ord("n"))
            found = found.at(is_object)
        following[found.opens] = inner
        work.present[inner] = found.doc
        work.held_at[len(self._plan.fields) + inner] = found.key.start

    def _stray(
        self, scan: Scan, found: Members, holder: int, number: int, work: _Work, drift: Mask | None = None
    ) -> None:
        keys, values = scan.texts(found.key), scan.texts(found.value)
        is_drift = np.ones(len(found.doc), bool) if drift is None else drift
        work.strays.append(Strays(holder, number, found.doc, found.key.start, keys, values, is_drift))

    def _note_absent(self, scan: Scan, columns: list[pa.Array], work: _Work) -> None:
        """Members that are usually null and that an object lacks."""
        for number, each in enumerate(self._plan.fields):
            holder = int(self._parents[number])
            if each.nulls == "absent" or not columns[number].null_count:
                continue
            lacks = np.setdiff1d(work.present.get(holder, _nowhere()), work.held_at.get(number, _nowhere()))
            if len(lacks):
                key = orjson.dumps(each.path[-1]).decode()[1:-1]
                keys, values = (pa.repeat(pa.scalar(text), len(lacks)) for text in (key, "null"))
                last, calm = np.full(len(lacks), _LAST), np.zeros(len(lacks), bool)
                work.strays.append(Strays(holder, number, lacks, last, keys, values, calm))

    def _rescued(self, scan: Scan, columns: list[pa.Array], work: _Work) -> pa.Array:
        """Objects that mirror the documents, with what the columns do not hold; from the deepest object upwards."""
        parts: dict[int, list[tuple[Ints, Ints, pa.Array]]] = {}
        for stray in work.strays:
            text = pc.binary_join_element_wise('"', stray.key, '":', stray.value, "")
            parts.setdefault(stray.holder, []).append((stray.doc, stray.place, text))
        for inner in range(len(self._plan.inner) - 1, 0, -1):
            path = self._plan.inner[inner]
            docs, texts = _joined(parts.pop(inner, []))
            bare = self._bare(inner, columns, docs, work)
            docs, texts = np.concatenate([docs, bare]), pa.concat_arrays([texts, pa.repeat(pa.scalar("{}"), len(bare))])
            if not len(docs):
                continue
            places = np.full(scan.count, _LAST)
            places[work.present[inner]] = work.held_at[len(self._plan.fields) + inner]
            key = orjson.dumps(path[-1]).decode()
            text = pc.binary_join_element_wise(f"{key}:", texts, "")
            parts.setdefault(self._plan.inner.index(path[:-1]), []).append((docs, places[docs], text))
        docs, texts = _joined(parts.pop(0, []))
        return _scattered(texts, docs, scan.count)

    def _bare(self, inner: int, columns: list[pa.Array], mentioned: Ints, work: _Work) -> Ints:
        """Documents that have the object, of which neither a column nor `_rescued` says anything."""
        docs = np.setdiff1d(work.present.get(inner, _nowhere()), mentioned)
        path = self._plan.inner[inner]
        for number, each in enumerate(self._plan.fields):
            if len(docs) and each.path[: len(path)] == path:
                docs = docs[np.asarray(columns[number].is_null().to_numpy(zero_copy_only=False))[docs]]
        return docs


def _nowhere() -> Ints:
    return np.zeros(0, np.int64)


def _last_of_each(members: Members) -> Members:
    """Of members of one name in one document the last, as JSON parsers have it."""
    doc = members.doc
    repeated = doc[:-1] == doc[1:]
    return members.at(np.append(~repeated, True)) if repeated.any() else members


def _scattered(values: pa.Array, docs: Ints, count: int) -> pa.Array:
    """Values at the places of their documents, null elsewhere."""
    if len(docs) == count:
        return values
    at = np.full(count, -1, np.int64)
    at[docs] = np.arange(len(docs))
    return values.take(pa.array(at, mask=at < 0))


def _joined(parts: list[tuple[Ints, Ints, pa.Array]]) -> tuple[Ints, pa.Array]:
    """Documents, in order, and the object of their parts in the order of their places."""
    if not parts:
        return _nowhere(), pa.array([], pa.string())
    docs = np.concatenate([part[0] for part in parts])
    places = np.concatenate([part[1] for part in parts])
    order = np.lexsort((places, docs))
    texts = pa.concat_arrays([part[2] for part in parts]).take(pa.array(order))
    found, first = np.unique(docs[order], return_index=True)
    bounds = np.append(first, len(docs)).astype(np.int32)
    members = pc.binary_join(pa.ListArray.from_arrays(pa.array(bounds), texts), ",")
    return found, pc.binary_join_element_wise("{", members, "}", "")
