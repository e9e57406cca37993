"""`EMBED(text)` of a SELECT: columns of texts become columns of vectors, the last step before the sink.

It comes after the SELECT, so that rows that a WHERE leaves out, or that do not fit the sink, are not paid for. Rows
that take another one away (`-U`, `-D`) get NULL: they need their key only.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.clients.embeddings_options import EmbeddingOptions
from vector_assets.engine.core import KIND, POSITION, Decoded, RowKind, rejects
from vector_assets.transforms.embedding_asking import Found, Model
from vector_assets.transforms.embedding_texts import Texts, texts_of

_TAKING = pa.array([RowKind.UPDATE_BEFORE, RowKind.DELETE], pa.int8())
_MILLION = 1_000_000


@dataclass(frozen=True, slots=True)
class Sizing:
    """The texts of some rows before they are sent: each one's hash, its bytes, and whether its vector is known."""

    keys: pa.Array
    bytes: pa.Array
    known: pa.Array
    rejected: int


class EmbeddingTransform:
    """Makes the vectors of `columns`; threads may share it.

    It takes rows of `input` (texts in place of vectors) and gives rows of `output`, the sink's. With `takes_blank` a
    text of nothing but white space has no vector, otherwise it is an error of its row.
    """

    def __init__(
        self, columns: Sequence[str], options: EmbeddingOptions, output: pa.Schema, *, pipeline: str,
        model: Model | None = None, stop: threading.Event | None = None, takes_blank: bool = False,
    ) -> None:  # fmt: skip
        self._columns = tuple(columns)
        self._output = output
        self._model = model or Model(options, pipeline)
        self._stop = stop or threading.Event()
        self._takes_blank = takes_blank

    @property
    def model(self) -> Model:
        """What is asked, with its cache."""
        return self._model

    @property
    def input(self) -> pa.Schema:
        """The sink's schema with texts where it has the vectors."""
        return input_schema(self._output, self._columns)

    def heeding(self, stop: threading.Event) -> "EmbeddingTransform":
        """The same; once `stop` is set, nothing more is sent."""
        options, pipeline = self._model.options, self._model.pipeline
        return EmbeddingTransform(
            self._columns, options, self._output, pipeline=pipeline, model=self._model, stop=stop,
            takes_blank=self._takes_blank,
        )  # fmt: skip

    def apply(self, rows: pa.Table) -> Decoded:
        """The rows with their vectors; records whose text has none are rejects with the model's reason.

        Raises:
            StoppedError: the run was told to stop.
            FatalError: the model does not answer, or would cost more than it may.
            PlanError: it refuses whatever it is asked.
            ConfigError: it refuses the key, or is not there.
        """
        errors: dict[int, str] = {}
        made: dict[str, pa.ChunkedArray] = {}
        usage = dict.fromkeys(("embedded", "reused", "tokens", "cost_micros"), 0)
        for name in self._columns:
            texts = self._texts(rows, name)
            found = self._model.vectors(texts, self._stop)
            made[name] = pa.chunked_array([_lists(found, texts, self._output.field(name).type)])
            for row, reason in (texts.errors | _reasons(texts, found)).items():
                errors.setdefault(row, f"column {name}: {reason}")
            usage["embedded"] += found.embedded
            usage["reused"] += found.reused
            usage["tokens"] += found.tokens
            usage["cost_micros"] += round(found.cost * _MILLION)
        rows = _replaced(rows, made, self._output)
        bad = sorted(errors)
        places = rows[POSITION].to_numpy()[bad]
        if bad:
            rows = rows.filter(pc.invert(pc.is_in(rows[POSITION], pa.array(np.unique(places)))))
        return Decoded(rows, _rejected(places, [errors[row] for row in bad]), usage=usage)

    def _texts(self, rows: pa.Table, name: str) -> Texts:
        return texts_of(rows[name], _taking(rows), self._model.options, takes_blank=self._takes_blank)

    def sizing(self, rows: pa.Table) -> Sizing:
        """What `apply` would have to send; nothing is sent."""
        keys: list[pa.Array] = []
        sizes: list[pa.Array] = []
        known: list[pa.Array] = []
        rejected = 0
        for name in self._columns:
            texts = self._texts(rows, name)
            is_known = np.zeros(len(texts.unique), np.bool_)
            is_known[self._model.known(texts)] = True
            keys.append(pa.FixedSizeBinaryArray.from_buffers(
                pa.binary(32), len(texts.unique), [None, pa.py_buffer(texts.keys)]
            ))  # fmt: skip
            sizes.append(pa.array(texts.sizes))
            known.append(pa.array(is_known))
            rejected += len(texts.errors)
        return Sizing(pa.concat_arrays(keys), pa.concat_arrays(sizes), pa.concat_arrays(known), rejected)


def input_schema(output: pa.Schema, columns: Sequence[str]) -> pa.Schema:
    """A schema with texts in place of the vectors of `columns`."""
    return pa.schema(
        [pa.field(each.name, pa.string(), each.nullable) if each.name in columns else each for each in output]
    )


def _taking(rows: pa.Table) -> npt.NDArray[np.bool_] | None:
    """Which rows take another one away; None when rows are inserts only."""
    if KIND not in rows.column_names:
        return None
    taking: npt.NDArray[np.bool_] = pc.is_in(rows[KIND], _TAKING).to_numpy()
    return taking


def _reasons(texts: Texts, found: Found) -> dict[int, str]:
    """Rows whose text has no vector, and why."""
    if not found.reasons:
        return {}
    bad = np.flatnonzero(np.isin(texts.codes, list(found.reasons)))
    return {row: found.reasons[code] for row, code in zip(bad.tolist(), texts.codes[bad].tolist(), strict=True)}


def _lists(found: Found, texts: Texts, kind: pa.DataType) -> pa.Array:
    """A vector for every row, NULL where it has none."""
    places = np.append(found.places, -1)[texts.codes]
    is_there = places >= 0
    values = found.vectors[places[is_there]]
    width = found.vectors.shape[1]
    offsets = np.concatenate([[0], np.cumsum(is_there * width)]).astype(np.int32)
    numbers = pa.array(values.reshape(-1), pa.float32()).cast(kind.value_type)
    return pa.ListArray.from_arrays(pa.array(offsets), numbers, type=kind, mask=pa.array(~is_there))


def _replaced(rows: pa.Table, made: dict[str, pa.ChunkedArray], output: pa.Schema) -> pa.Table:
    """The rows with other columns under the same names."""
    for name, values in made.items():
        rows = rows.set_column(rows.schema.get_field_index(name), output.field(name), values)
    return rows


def _rejected(places: npt.NDArray[np.int64], reasons: list[str]) -> pa.Table:
    """One reject for a record, whatever number of its rows has none."""
    first: dict[int, str] = {}
    for place, reason in zip(places.tolist(), reasons, strict=True):
        first.setdefault(place, reason)
    return rejects(sorted(first), "transform", pa.array([first[place] for place in sorted(first)], pa.string()))
