"""What drifting documents say about the columns: changes that are wanted, and reasons for people."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Protocol, cast

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.engine.core import Json, SchemaChange
from vector_assets.engine.errors import ConfigError
from vector_assets.formats.grammar import Mask, as_mask
from vector_assets.formats.lake_fields import LakeField, Path, check_fields, inner_paths, path_text
from vector_assets.formats.lake_infer import infer, widened
from vector_assets.formats.lake_rows import UNKNOWN, Plan, Read, Strays
from vector_assets.formats.lake_values import NUMERIC

_SHOWN = 60


class DriftOptions(Protocol):
    """What of a decoder's options matters here."""

    @property
    def layers(self) -> int:
        """How deep new members are expanded."""
        ...

    @property
    def paths(self) -> tuple[Path, ...]:
        """Paths that are wanted nowhere."""
        ...

    @property
    def taken(self) -> tuple[str, ...]:
        """Names of columns besides the fields'."""
        ...


@dataclass(frozen=True, slots=True)
class EvolvedFields:
    """Fields as declared with changes applied; `refused` are paths whose change the target did not make."""

    fields: tuple[LakeField, ...]
    refused: frozenset[Path]


def applied(declared: Sequence[LakeField], state: Sequence[Json]) -> EvolvedFields:
    """The fields that a state's entries make of the declared ones.

    An entry that does not fit them any more, because the declaration was changed since, is passed over.
    """
    fields, refused = list(declared), set[Path]()
    for entry in state:
        values = cast("dict[str, Any]", entry)
        if "refused" in values:
            refused.add(tuple(values["refused"]))
            continue
        field = LakeField.from_json(values["field"])
        at = next((number for number, each in enumerate(fields) if each.path == field.path), None)
        if at is not None and values["was"] == fields[at].spelled:
            fields[at] = replace(fields[at], type=field.type, json=field.json)
        elif at is None and _fits([*fields, field]):
            fields.append(field)
    return EvolvedFields(tuple(fields), frozenset(refused))


def _fits(fields: Sequence[LakeField]) -> bool:
    try:
        check_fields(fields)
    except ConfigError:
        return False
    return True


def asking(plan: Plan, refused: frozenset[Path], layers: int, found: Read) -> Mask:
    """Documents that other columns might hold better: with unknown members, or numbers that do not fit their column."""
    asks = np.zeros(len(found.drifting), bool)
    for stray in found.strays:
        if stray.field == UNKNOWN:
            path = plan.inner[stray.holder]
            if len(path) < layers:
                said_no = pa.array([each[-1] for each in refused if each[:-1] == path], pa.string())
                is_in_vain = pc.or_(pc.is_in(stray.key, said_no), pc.is_in(stray.value, pa.array(["null", "{}"])))
                asks[stray.doc[~as_mask(is_in_vain)]] = True
        elif _may_widen(plan, refused, stray):
            asks[stray.doc[_numbers(stray)]] = True
    return asks


def _may_widen(plan: Plan, refused: frozenset[Path], stray: Strays) -> bool:
    field = plan.fields[stray.field] if stray.field < len(plan.fields) else None
    return field is not None and field.type.name in NUMERIC and field.path not in refused


def _numbers(stray: Strays) -> Mask:
    return stray.drift & as_mask(pc.match_substring_regex(stray.value, r"\A[-0-9]"))


def changes_for(
    plan: Plan, evolved: EvolvedFields, options: DriftOptions, found: Read, doc: int, document: bytes, position: int
) -> list[SchemaChange]:
    """Columns to widen and to add for one document, number `doc` of those read; none where nothing helps."""
    changes = []
    for stray in found.strays:
        if stray.field == UNKNOWN or not _may_widen(plan, evolved.refused, stray):
            continue
        for at in np.flatnonzero(_numbers(stray) & (stray.doc == doc)):
            each = plan.fields[stray.field]
            kind = widened(each.type, Decimal(stray.value[int(at)].as_py()))
            if kind is not None:
                what = f"column {each.name} widened from {each.type} to {kind} for {path_text(each.path)}"
                entry: Json = {"field": replace(each, type=kind).to_json(), "was": each.spelled}
                changes.append(SchemaChange(position, what, entry, {"refused": list(each.path)}))
    return changes + _added(evolved, options, document, position)


def _added(evolved: EvolvedFields, options: DriftOptions, document: bytes, position: int) -> list[SchemaChange]:
    known = {each.path for each in evolved.fields} | set(options.paths) | evolved.refused
    inner = set(inner_paths(evolved.fields)) | {path[:depth] for path in options.paths for depth in range(len(path))}
    found = infer([document], options.layers, taken=[*options.taken, *(each.name for each in evolved.fields)])
    changes = []
    for field, evidence in zip(found.fields, found.evidence, strict=True):
        path = field.path
        is_covered = path in inner or any(path[:depth] in known for depth in range(1, len(path) + 1))
        if not (is_covered or evidence.counts.get("null") or evidence.is_empty):
            what = f"column {field.name} {field.spelled} added for {path_text(path)}"
            # rows that were written before have a null here, and lack the member
            entry: Json = {"field": replace(field, nulls="absent").to_json(), "was": None}
            changes.append(SchemaChange(position, what, entry, {"refused": list(path)}))
    return changes


def reasons(plan: Plan, found: Read) -> dict[int, str]:
    """Why documents drift: the first thing in each, with its path, what was found and what was wanted."""
    told: dict[int, tuple[int, str]] = {}
    for stray in found.strays:
        # slow path: one text a document that is a dead letter, or stops the pipeline
        for at in np.flatnonzero(stray.drift):
            doc, place = int(stray.doc[at]), int(stray.place[at])
            if doc not in told or place < told[doc][0]:
                told[doc] = (place, _reason(plan, stray, stray.key[int(at)].as_py(), stray.value[int(at)].as_py()))
    return {doc: reason for doc, (_, reason) in told.items()}


def _reason(plan: Plan, stray: Strays, key: str, value: str) -> str:
    path = path_text((*plan.inner[stray.holder], orjson.loads(f'"{key}"') if _is_plain(key) else key))
    shown = {"{": "an object", "[": "an array"}.get(value[0], value[:_SHOWN])
    if stray.field == UNKNOWN:
        return f"drift: found member {path} ({shown}), wanted no other than the declared ones"
    if stray.field >= len(plan.fields):
        return f"drift: {path}: found {shown}, wanted an object"
    return f"drift: {path}: found {shown}, wanted {plan.fields[stray.field].spelled}"


def _is_plain(key: str) -> bool:
    """False for a key with half a surrogate pair, which is told as it is written."""
    return "\\ud" not in key.lower()
