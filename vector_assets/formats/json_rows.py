"""JSON documents to typed columns by Flink's rules: the core of json and of the formats that wrap rows in envelopes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from vector_assets.engine.errors import ConfigError, RecordError
from vector_assets.engine.schema import LogicalType
from vector_assets.formats.grammar import Mask
from vector_assets.formats.json_blocks import BlockReader, Part, Places, in_order
from vector_assets.formats.json_exact import ExactReader, read_document
from vector_assets.formats.json_values import TEXTS
from vector_assets.formats.text_values import Parsed

_FEW = 1000
"""Documents in Python's hands at once: many more, and the garbage collector takes most of the time."""

TimestampFormat = Literal["SQL", "ISO-8601"]


@dataclass(frozen=True, slots=True)
class JsonRules:
    """How documents are read: Flink's decoding options.

    `ignore_parse_errors`: a value that does not fit its type becomes null and is counted; a document that is no JSON
    object is an error all the same. `fail_on_missing_field`: a field that is not there is an error instead of a null.
    """

    ignore_parse_errors: bool = False
    fail_on_missing_field: bool = False
    timestamp_format: TimestampFormat = "SQL"


@dataclass(frozen=True, slots=True)
class ParsedRows:
    """What became of documents: `columns[i][j]` is column i of document `places[j]`, in order; the others have errors.

    `errors` maps a document's index to the reason for people (path, found, wanted), without the format's name in front;
    `nulled` counts values set to null because of `ignore_parse_errors`.
    """

    columns: list[pa.Array]
    places: Places
    errors: dict[int, str] = field(default_factory=dict)
    nulled: int = 0


class JsonRows:
    """Reads documents that are one JSON object each into these columns. Immutable, so threads may share it.

    Columns may be nested (ROW, ARRAY, MAP with text keys); a name is matched by its exact case, unknown names are
    passed over, the last of several equal names counts, an absent name is null.
    """

    def __init__(self, columns: Sequence[tuple[str, LogicalType]], rules: JsonRules) -> None:
        """Refuse types that JSON has no reading for.

        Raises:
            ConfigError: a MAP whose keys are not text; names the column.
        """
        for name, kind in columns:
            _check_keys(name, kind)
        self._columns = tuple(columns)
        self._rules = rules
        iso, missing = rules.timestamp_format == "ISO-8601", rules.fail_on_missing_field
        self._exact = ExactReader(iso=iso, lenient=rules.ignore_parse_errors, missing_is_bad=missing)
        self._blocks: BlockReader | None = None
        if not any(_holds_map(kind) for _, kind in columns):
            self._blocks = BlockReader(self._columns, iso=iso, nulls_are_odd=missing)

    def parse(self, documents: pa.Array) -> ParsedRows:
        """The columns of binary documents, all together small enough for one buffer (2 GiB).

        A null document is an error (`null value (a tombstone)`): callers that give it a meaning take it out before.
        """
        if self._blocks is None:
            return self.parse_exactly(documents)
        parts, odd = self._blocks.read(documents)
        if not len(odd):
            return ParsedRows(*self._joined(parts))
        rest = self.parse_exactly(documents.take(pa.array(odd)))
        columns, places = self._joined([*parts, Part(rest.columns, odd[rest.places])])
        return ParsedRows(columns, places, {int(odd[at]): reason for at, reason in rest.errors.items()}, rest.nulled)

    def parse_exactly(self, documents: pa.Array) -> ParsedRows:
        """The same as `parse`, one document after the other: slow path for what is not plain, and for MAP columns."""
        done = [self._few(documents.slice(start, _FEW), start) for start in range(0, len(documents), _FEW)]
        return ParsedRows(
            *self._joined([Part(few.columns, few.places) for few in done]),
            {place: reason for few in done for place, reason in few.errors.items()},
            sum(few.nulled for few in done),
        )

    def _few(self, documents: pa.Array, first: int) -> ParsedRows:
        objects: list[dict[str, Any]] = []
        kept: list[int] = []
        errors: dict[int, str] = {}
        for place, document in enumerate(documents.to_pylist(), first):
            try:
                objects.append(read_document(document))
                kept.append(place)
            except RecordError as error:
                errors[place] = str(error)
        places = np.array(kept, np.int64)
        parsed = [self._exact.member(objects, name, kind) for name, kind in self._columns]
        arrays, bad = [column.values for column in parsed], self._bad(parsed, objects, kept, errors)
        if bad is not None:
            arrays, places = [array.filter(pa.array(~bad)) for array in arrays], places[~bad]
        return ParsedRows(arrays, places, dict(sorted(errors.items())), sum(column.nulled for column in parsed))

    def _joined(self, parts: list[Part]) -> tuple[list[pa.Array], Places]:
        joined = in_order(parts, [pa.array([], kind.arrow) for _, kind in self._columns])
        return joined.columns, joined.places

    def _bad(
        self, parsed: list[Parsed], objects: list[dict[str, Any]], kept: list[int], errors: dict[int, str]
    ) -> Mask | None:
        """Documents with a bad value; the first bad column of a document gives the error."""
        seen: Mask | None = None
        for (name, kind), column in zip(self._columns, parsed, strict=True):
            if column.bad is None:
                continue
            seen = np.zeros(len(objects), bool) if seen is None else seen
            for number in np.flatnonzero(column.bad & ~seen).tolist():
                errors[kept[number]] = self._exact.problem(objects[number], name, kind)
            seen |= column.bad
        return seen


def _holds_map(kind: LogicalType) -> bool:
    return kind.name == "MAP" or any(map(_holds_map, kind.children))


def _check_keys(column: str, kind: LogicalType) -> None:
    if kind.name == "MAP" and kind.children[0].name not in TEXTS:
        raise ConfigError(f"format json: column {column} is {kind}; the keys of a JSON object are text (STRING)")
    for child in kind.children:
        _check_keys(column, child)
