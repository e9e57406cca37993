"""Format changelog-json: Ververica's `{"data": {...}, "op": "+I"}`, one row and its row kind in each record."""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import pyarrow as pa

from vector_assets.engine.core import RowKind
from vector_assets.engine.schema import Table
from vector_assets.formats.changelog import (
    STRING,
    ChangelogDecoder,
    Changes,
    Envelopes,
    JsonChangesOptions,
    actions_of,
    row_of,
    spelled,
    unknown_operations,
)
from vector_assets.formats.grammar import as_mask
from vector_assets.formats.json_rows import JsonRows

_OPERATIONS: Mapping[str, RowKind | None] = {
    "+I": RowKind.INSERT,
    "-U": RowKind.UPDATE_BEFORE,
    "+U": RowKind.UPDATE_AFTER,
    "-D": RowKind.DELETE,
}


class ChangelogJsonOptions(JsonChangesOptions):
    """The options of the changelog-json format, as far as a source has a use for them."""

    model_config = spelled("changelog-json")


class ChangelogJsonDecoder(ChangelogDecoder):
    """Records of format changelog-json to changes."""

    NAME: ClassVar[str] = "changelog-json"

    def __init__(self, options: ChangelogJsonOptions, table: Table) -> None:
        """Make the reader of the envelopes.

        Raises:
            ConfigError: at a column that the format cannot fill.
        """
        super().__init__(options.rules(), table)
        self._members = [("data", row_of(self.physical)), ("op", STRING)]
        self._reader = JsonRows(self._members, self.rules)

    def read(self, documents: pa.Array) -> Envelopes:
        """Data and op."""
        return Envelopes.of(self._reader.parse(documents), [name for name, _ in self._members])

    def changes(self, documents: pa.Array, envelopes: Envelopes) -> Changes:
        """One row for each record."""
        data, op = envelopes.columns["data"], envelopes.columns["op"]
        actions, is_unknown = actions_of(op, _OPERATIONS)
        wrong = unknown_operations("op", op, is_unknown, _OPERATIONS)
        has_row = as_mask(data.is_valid())
        for place in np.flatnonzero(~has_row & ~is_unknown).tolist():
            wrong[place] = "column data: found nothing, wanted a row"
        owners = np.flatnonzero(has_row & ~is_unknown)
        if len(owners) < len(data):
            data = data.take(pa.array(owners))
        return Changes(owners, actions[owners].astype(np.int8), data.flatten(), wrong)
