"""Format lake-json: JSON documents to the columns of a lake table, by fields that were inferred, and drift by a mode.

`rescue`: what no column holds goes to `_rescued`. `evolve`: columns are added and widened, the rest is rescued.
`freeze`: a document with anything that no column is for is a dead letter. `fail`: it stops the pipeline.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator

from vector_assets.engine.core import POSITION, RAW_SCHEMA, REJECT_SCHEMA, Decoded, Json, SchemaChange, rejects
from vector_assets.engine.errors import DriftError, RecordError
from vector_assets.engine.options import Options
from vector_assets.engine.schema import Column
from vector_assets.formats.json_blocks import BlockReader, Places
from vector_assets.formats.json_exact import read_document
from vector_assets.formats.lake_drift import applied, asking, changes_for, reasons
from vector_assets.formats.lake_fields import RESCUED, STRING, LakeField, Path, check_fields, parse_path
from vector_assets.formats.lake_infer import MOST_LAYERS, Inferred, infer
from vector_assets.formats.lake_plain import PlainReader
from vector_assets.formats.lake_rows import RowReader, plan_of
from vector_assets.formats.pieces import in_one, pieces

DriftMode = Literal["rescue", "evolve", "freeze", "fail"]
_NOWHERE = (("\0", STRING),)
"""A column that no document has: what is read is only whether they are documents."""


class LakeJsonOptions(Options):
    """Options of lake-json beside its fields."""

    layers: int = Field(1, ge=0, le=MOST_LAYERS)
    """Parsed JSON layers, 0 to 4: how deep new members are expanded in the mode `evolve`."""
    drift: DriftMode = "rescue"
    """What becomes of members that no column is for, and of values that do not fit: `rescue` keeps them in `_rescued`,
    `evolve` adds and widens columns, `freeze` makes the record a dead letter, `fail` stops."""
    ignored: tuple[str, ...] = ()
    """Paths that are wanted nowhere, such as `device.os`."""
    taken: tuple[str, ...] = ()
    """Names of the table's other columns, such as that of the record's time: no new column gets one of them."""

    @field_validator("ignored")
    @classmethod
    def _are_paths(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        for path in paths:
            parse_path(path)
        return paths

    @property
    def paths(self) -> tuple[Path, ...]:
        """The ignored paths by their keys."""
        return tuple(parse_path(path) for path in self.ignored)

    @property
    def rescues(self) -> bool:
        """There is a column `_rescued`."""
        return self.drift in {"rescue", "evolve"}


class LakeJsonDecoder:
    """Records of one JSON object each to rows. Immutable, so threads may share it."""

    def __init__(self, fields: Sequence[LakeField], options: LakeJsonOptions, state: Sequence[Json] = ()) -> None:
        """A decoder for fields as declared, with the changes of `state`.

        Raises:
            ConfigError: fields that cannot stand beside each other, or an ignored path that is or holds one.
        """
        check_fields(fields)
        self._declared, self._options, self._state = tuple(fields), options, tuple(state)
        self._evolved = applied(self._declared, state)
        self.fields = self._evolved.fields
        check_fields([*self.fields, *(LakeField(path, f"\0{path}") for path in options.paths)])
        self._plan = plan_of(self.fields, options.paths)
        self._rows = RowReader(self._plan)
        self._plain = PlainReader(self.fields)
        self._validity = BlockReader(_NOWHERE, iso=False, nulls_are_odd=False)
        self._schema = self.schema.append(pa.field(POSITION, pa.int64(), nullable=False))

    @property
    def evolves(self) -> bool:
        """The mode is `evolve`, and there are members to make columns of."""
        return self._options.drift == "evolve" and self._options.layers > 0

    @property
    def columns(self) -> tuple[Column, ...]:
        """The fields in order, then `_rescued` where the mode has it."""
        found = [Column(each.name, each.type) for each in self.fields]
        return (*found, Column(RESCUED, STRING)) if self._options.rescues else tuple(found)

    @property
    def schema(self) -> pa.Schema:
        """The columns as Arrow has them."""
        return pa.schema([pa.field(column.name, column.type.arrow) for column in self.columns])

    def evolved(self, state: Sequence[Json]) -> Self:
        """The decoder as declared, with the changes of `state`."""
        return type(self)(self._declared, self._options, state)

    def decode(self, raw: pa.RecordBatch | pa.Table) -> Decoded:
        """Rows and rejects of RAW_SCHEMA + `_position`, both in the order of the records.

        Raises:
            DriftError: a document drifts and the mode is `fail`.
        """
        drifting: list[tuple[pa.Array, pa.Array]] = []
        plain, rest = self._read_plain(raw) if self._plain.is_able else ([], raw)
        done = [self._piece(raw, values, positions, drifting) for values, positions in pieces(rest)]
        rejected = pa.concat_tables([REJECT_SCHEMA.empty_table(), *(piece.rejected for piece in done)])
        tables = [*plain, *(piece.rows for piece in done)]
        plain.clear()
        done.clear()
        rows = in_one(tables, self._schema)
        order = rows.column(POSITION).to_numpy()
        if (order[1:] < order[:-1]).any():
            rows = rows.take(pa.array(np.argsort(order, kind="stable")))
        return Decoded(
            rows=rows,
            rejected=rejected,
            wants=self._wants(drifting) if drifting else (),
        )

    def _read_plain(self, raw: pa.RecordBatch | pa.Table) -> tuple[list[pa.Table], pa.Table]:
        """Rows of the documents that are plain, and the values and positions of the others."""
        tables, rest = [], [pa.table({"value": pa.array([], pa.binary()), POSITION: pa.array([], pa.int64())})]
        for values, positions in pieces(raw):
            parts, odd = self._plain.read(values)
            for part in parts:
                nothing = pa.nulls(len(part.places), pa.string())
                tables.append(self._table([*part.columns, nothing], _chosen(positions, part.places)))
            if len(odd):
                others = pa.array(odd)
                rest.append(pa.table({"value": values.take(others), POSITION: positions.take(others)}))
        return tables, pa.concat_tables(rest)

    def _wants(self, drifting: list[tuple[pa.Array, pa.Array]]) -> tuple[SchemaChange, ...]:
        """Changes for documents (values and positions) in their order, each as if those before it had been made.

        So they are the same however the records are cut into batches.
        """
        documents = pa.concat_arrays([values for values, _ in drifting])
        positions = np.concatenate([np.asarray(places) for _, places in drifting])
        decoder, changes = self, list[SchemaChange]()
        while True:
            found = decoder._rows.read(documents)
            asks = asking(decoder._plan, decoder._evolved.refused, self._options.layers, found)
            for doc in np.flatnonzero(asks).tolist():
                # slow path: the documents that need other columns, one by one
                step = changes_for(
                    decoder._plan,
                    decoder._evolved,
                    self._options,
                    found,
                    doc,
                    documents[doc].as_py(),
                    int(positions[doc]),
                )
                if step:
                    break
            else:
                return tuple(changes)
            changes += step
            decoder = self.evolved([*self._state, *(change.entry for change in changes)])
            documents, positions = documents.slice(doc), positions[doc:]

    def _piece(
        self, raw: pa.RecordBatch | pa.Table, values: pa.Array, positions: pa.Array,
        drifting: list[tuple[pa.Array, pa.Array]],
    ) -> Decoded:  # fmt: skip
        errors = self._invalid(values)
        places = np.arange(len(values))
        if errors:
            places = np.delete(places, list(errors))
            values = values.take(pa.array(places))
        good = positions.take(pa.array(places)) if errors else positions
        found = self._rows.read(values)
        columns = [*found.columns, found.rescued]
        if found.drifting.any():
            if self._options.drift == "fail":
                self._fail(raw, good.filter(pa.array(found.drifting))[0].as_py(), reasons(self._plan, found))
            if self._options.drift == "freeze":
                told = reasons(self._plan, found)
                errors |= {int(places[doc]): reason for doc, reason in told.items()}
                calm = pa.array(~found.drifting)
                columns, good = [column.filter(calm) for column in columns], good.filter(calm)
            elif self.evolves:
                asks = asking(self._plan, self._evolved.refused, self._options.layers, found)
                if asks.any():
                    drifting.append((values.filter(pa.array(asks)), good.filter(pa.array(asks))))
        rows = self._table(columns, good)
        order = sorted(errors)
        texts = pa.array([f"lake-json: {errors[place]}" for place in order], pa.string())
        return Decoded(rows, rejects(positions.take(pa.array(order, pa.int64())), "decode", texts))

    def _table(self, columns: list[pa.Array], positions: pa.Array) -> pa.Table:
        """Rows of the fields' columns and that of what is rescued, which some modes do not have."""
        arrays = columns if self._options.rescues else columns[:-1]
        return pa.Table.from_arrays([*arrays, positions], schema=self._schema)

    def _invalid(self, values: pa.Array) -> dict[int, str]:
        """Documents that are not one JSON object, and why."""
        _, odd = self._validity.read(values)
        errors = {}
        # slow path: what pyarrow.json does not take, one by one
        for place in odd:
            try:
                read_document(values[int(place)].as_py())
            except RecordError as error:
                errors[int(place)] = str(error)
        return errors

    def _fail(self, raw: pa.RecordBatch | pa.Table, position: int, told: dict[int, str]) -> NoReturn:
        at = pc.index(raw.column(POSITION), position).as_py()
        split, offset = (int(raw.column(name)[at].as_py()) for name in ("split", "offset"))
        raise DriftError(split, offset, f"lake-json: {told[min(told)]}")


def _chosen(positions: pa.Array, places: Places) -> pa.Array:
    """The positions at these places, which are in order: not copied where none is left out between."""
    count = len(places)
    if count and places[-1] - places[0] == count - 1:
        return positions.slice(int(places[0]), count)
    return positions.take(pa.array(places))


@dataclass(frozen=True, slots=True)
class LakePreview:
    """What a job would make of samples: `rows` have `_position`, the number of the sample, and so have `rejected`."""

    inferred: Inferred
    fields: tuple[LakeField, ...]
    rows: pa.Table
    rejected: pa.Table


def preview_samples(
    samples: pa.Table | Sequence[bytes | None], layers: int = 1, *, types: Any = None, times: bool = False,
    fields: Sequence[LakeField] | None = None, ignored: Iterable[str] = (), taken: Iterable[str] = (),
    freezes: bool = False,
) -> LakePreview:  # fmt: skip
    """Fields inferred from samples (values, or RAW_SCHEMA records) and the rows that they, or `fields`, give.

    What does not fit is rescued, or rejected if the job `freezes`. Nothing is written anywhere.

    Raises:
        ConfigError: as `infer`, or `fields` that cannot stand beside each other.
    """
    if isinstance(samples, pa.Table):
        values = samples.column("value").combine_chunks()
    else:
        values = pa.array(samples, pa.binary())
    inferred = infer(values, layers, types=types, times=times, taken=taken)
    chosen = tuple(fields) if fields is not None else inferred.fields
    options = LakeJsonOptions(layers=layers, drift="freeze" if freezes else "rescue", ignored=tuple(ignored))
    numbers = pa.array(np.arange(len(values)))
    raw = pa.table({"value": values, POSITION: numbers, "split": pa.nulls(len(values), RAW_SCHEMA.field("split").type)})
    decoded = LakeJsonDecoder(chosen, options).decode(raw)
    return LakePreview(inferred, chosen, decoded.rows, decoded.rejected)
