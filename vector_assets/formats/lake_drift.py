"""What drifting documents say about the columns: changes that are wanted, and reasons for people."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.engine.core import Json, SchemaChange
from vector_assets.engine.errors import ConfigError
from vector_assets.formats.grammar import as_mask
from vector_assets.formats.lake_fields import LakeField, Path, check_fields, inner_paths, path_text
from vector_assets.formats.lake_infer import Numbers, infer, widened
from vector_assets.formats.lake_rows import UNKNOWN, Plan, Read, Strays
from vector_assets.formats.lake_values import NUMERIC

_SHOWN = 60
Positions = npt.NDArray[np.int64]


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


@dataclass(frozen=True, slots=True)
class Drift:
    """What of some documents may ask for other columns: documents with unknown members, and numbers (`texts`) that do
    not fit their column, each by the field's number, with the positions of their records."""

    documents: pa.Array
    positions: Positions
    misfits: tuple[tuple[int, Positions, pa.Array], ...]


def drift_of(
    plan: Plan, refused: frozenset[Path], layers: int, found: Read, documents: pa.Array, positions: Positions
) -> Drift:
    """The part of documents' strays that other columns could hold."""
    unknown = np.zeros(len(documents), bool)
    misfits = []
    for stray in found.strays:
        number = stray.field
        if number == UNKNOWN:
            path = plan.inner[stray.holder]
            if len(path) < layers:
                said_no = [each[-1] for each in refused if each[:-1] == path]
                is_known = pc.or_(pc.is_in(stray.key, pa.array(said_no, pa.string())), pc.equal(stray.value, "null"))
                unknown[stray.doc[~as_mask(is_known)]] = True
        elif number < len(plan.fields) and stray.drift.any():
            each = plan.fields[number]
            numbers = stray.drift & as_mask(pc.match_substring_regex(stray.value, r"\A[-0-9]"))
            if each.type.name in NUMERIC and each.path not in refused and numbers.any():
                misfits.append((number, positions[stray.doc[numbers]], stray.value.filter(pa.array(numbers))))
    return Drift(documents.filter(pa.array(unknown)), positions[unknown], tuple(misfits))


def wanted_changes(evolved: EvolvedFields, options: DriftOptions, drifts: Sequence[Drift]) -> tuple[SchemaChange, ...]:
    """Columns to widen and to add, so that more of the documents fits; none where nothing helps."""
    return (*_widened(evolved, drifts), *_added(evolved, options, drifts))


def _added(evolved: EvolvedFields, options: DriftOptions, drifts: Sequence[Drift]) -> list[SchemaChange]:
    values = pa.concat_arrays([drift.documents for drift in drifts])
    if not len(values):
        return []
    positions = np.concatenate([drift.positions for drift in drifts])
    known = {each.path for each in evolved.fields} | set(options.paths) | evolved.refused
    inner = set(inner_paths(evolved.fields)) | {path[:depth] for path in options.paths for depth in range(len(path))}
    found = infer(values, options.layers, taken=[each.name for each in evolved.fields])
    changes = []
    for field, evidence in zip(found.fields, found.evidence, strict=True):
        path = field.path
        has_value = any(count for kind, count in evidence.counts.items() if kind not in {"null", "missing"})
        is_covered = path in inner or any(path[:depth] in known for depth in range(1, len(path) + 1))
        if has_value and not is_covered:
            what = f"column {field.name} {field.spelled} added for {path_text(path)} ({evidence})"
            # rows that were written before have a null here, and lack the member
            entry: Json = {"field": replace(field, nulls="absent").to_json(), "was": None}
            changes.append(SchemaChange(int(positions[evidence.first]), what, entry, {"refused": list(path)}))
    return changes


def _widened(evolved: EvolvedFields, drifts: Sequence[Drift]) -> list[SchemaChange]:
    seen: dict[int, tuple[int, Numbers]] = {}
    for number, positions, texts in (misfit for drift in drifts for misfit in drift.misfits):
        _, numbers = seen.setdefault(number, (int(positions[0]), Numbers()))
        # slow path: numbers that do not fit, when a change of the columns may be due
        for text in texts:
            numbers.see(Decimal(text.as_py()))
    changes = []
    for number, (position, numbers) in sorted(seen.items()):
        each = evolved.fields[number]
        kind = widened(each.type, numbers)
        if kind is not None and kind != each.type:
            what = f"column {each.name} widened from {each.type} to {kind} for {path_text(each.path)}"
            entry: Json = {"field": replace(each, type=kind).to_json(), "was": each.spelled}
            changes.append(SchemaChange(position, what, entry, {"refused": list(each.path)}))
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
