"""Format maxwell-json: a row after the change, and of an update what its changed fields were before.

A field that `old` lacks has not changed; one that is null there was null before. What fails a Flink job is rejected
here, except that rows of a bootstrap are inserts, and that its other records and those of DDL, which hold no row, are
passed over. Maxwell's `ts` counts seconds and is read so, where Flink takes it for milliseconds.
"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.engine.core import RowKind
from vector_assets.engine.schema import LogicalType, Table
from vector_assets.formats.changelog import (
    BIGINT,
    STRING,
    TIME,
    ChangelogDecoder,
    Changes,
    Envelopes,
    Images,
    WritableChangesOptions,
    actions_of,
    milliseconds,
    row_of,
    spelled,
    unknown_operations,
    writing_only,
)
from vector_assets.formats.grammar import as_mask
from vector_assets.formats.json_rows import JsonRows
from vector_assets.formats.old_values import nulls_in_old, restored

_OPERATIONS: Mapping[str, RowKind | None] = {
    "insert": RowKind.INSERT,
    "update": RowKind.UPDATE_AFTER,
    "delete": RowKind.DELETE,
    "bootstrap-insert": RowKind.INSERT,
    **dict.fromkeys(("bootstrap-start", "bootstrap-complete", "heartbeat")),
    **dict.fromkeys(f"{what}-{how}" for what in ("table", "database") for how in ("create", "alter", "drop")),
}
_MEMBERS = {"database": "database", "table": "table", "primary-key-columns": "primary_key_columns"}


class MaxwellJsonOptions(WritableChangesOptions):
    """Flink's options of the maxwell-json format; those for writing are checked and have no effect on a source."""

    model_config = spelled("maxwell-json")
    idle: ClassVar[Mapping[str, str]] = writing_only("maxwell-json")


class MaxwellJsonDecoder(ChangelogDecoder):
    """Records of format maxwell-json to changes."""

    NAME: ClassVar[str] = "maxwell-json"
    METADATA: ClassVar[Mapping[str, LogicalType]] = {
        **ChangelogDecoder.METADATA,
        "database": STRING,
        "table": STRING,
        "primary-key-columns": LogicalType("ARRAY", children=(STRING,)),
        "ingestion-timestamp": TIME,
    }

    def __init__(self, options: MaxwellJsonOptions, table: Table) -> None:
        """Make the readers of the envelopes.

        Raises:
            ConfigError: at a column that the format cannot fill.
        """
        super().__init__(options.rules(), table)
        row = row_of(self.physical)
        self._members = [("data", row), ("old", row), ("type", STRING)]
        self._members += [(_MEMBERS[key], self.METADATA[key]) for key in _MEMBERS if key in self.wanted]
        if "ingestion-timestamp" in self.wanted:
            self._members.append(("ts", BIGINT))
        self._reader = JsonRows(self._members, self.rules)

    def read(self, documents: pa.Array) -> Envelopes:
        """Data, old and type."""
        return Envelopes.of(self._reader.parse(documents), [name for name, _ in self._members])

    def changes(self, documents: pa.Array, envelopes: Envelopes) -> Changes:
        """Both rows of an update, the one row of any other change."""
        data, old, kind = (envelopes.columns[name] for name in ("data", "old", "type"))
        actions, is_unknown = actions_of(kind, _OPERATIONS)
        wrong = unknown_operations("type", kind, is_unknown, _OPERATIONS)
        for place in np.flatnonzero((actions >= 0) & ~as_mask(data.is_valid())).tolist():
            wrong[place] = "column data: found nothing, wanted a row"
        for place in np.flatnonzero((actions == RowKind.UPDATE_AFTER) & ~as_mask(old.is_valid())).tolist():
            wrong.setdefault(place, "column old: found nothing in an update, wanted what has changed")
        lacking = np.zeros(len(kind), bool)
        lacking[list(wrong)] = True
        owners = np.flatnonzero((actions >= 0) & ~lacking)
        taken = pa.array(owners)
        after, changed = data.take(taken).flatten(), old.take(taken).flatten()
        updates = np.flatnonzero(actions[owners] == RowKind.UPDATE_AFTER)
        nulls = nulls_in_old(documents.take(pa.array(envelopes.places[owners[updates]])), updates)
        before = restored(changed, after, nulls, [name for name, _ in self.physical])
        changes = Images(owners, actions[owners].astype(np.int8), before, after).changes()
        changes.wrong = wrong
        return changes

    def metadata(self, key: str, envelopes: Envelopes) -> pa.Array:
        """The time in seconds, names as they are."""
        if key == "ingestion-timestamp":
            return milliseconds(pc.multiply(envelopes.columns["ts"], 1000))
        return envelopes.columns[_MEMBERS[key]]
