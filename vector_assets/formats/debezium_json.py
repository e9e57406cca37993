"""Format debezium-json: Debezium's envelopes of a row before and after, with or without their schema.

What fails a Flink job is rejected here, a truncation among it: the record does not say which rows are gone. Logical
messages (`m`) hold no row and are passed over.
"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from vector_assets.engine.core import RowKind
from vector_assets.engine.errors import ConfigError
from vector_assets.engine.options import Flag
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

_OPERATIONS: Mapping[str, RowKind | None] = {
    "c": RowKind.INSERT,
    "r": RowKind.INSERT,
    "u": RowKind.UPDATE_AFTER,
    "d": RowKind.DELETE,
    "m": None,
}
_PROPERTIES = LogicalType("MAP", children=(STRING, STRING))
_SOURCE = {"source.timestamp": "ts_ms", "source.database": "db", "source.schema": "schema", "source.table": "table"}
"""METADATA keys and the members of `source` that hold them."""


class DebeziumJsonOptions(WritableChangesOptions):
    """Flink's options of the debezium-json format; those for writing are checked and have no effect on a source."""

    model_config = spelled("debezium-json")
    idle: ClassVar[Mapping[str, str]] = writing_only("debezium-json")

    schema_include: Flag = Field(default=False, alias="debezium-json.schema-include")
    """The records hold a `schema` beside their `payload` (Kafka Connect's `value.converter.schemas.enable`)."""


class DebeziumJsonDecoder(ChangelogDecoder):
    """Records of format debezium-json to changes."""

    NAME: ClassVar[str] = "debezium-json"
    METADATA: ClassVar[Mapping[str, LogicalType]] = {
        **ChangelogDecoder.METADATA,
        "schema": STRING,
        "ingestion-timestamp": TIME,
        "source.timestamp": TIME,
        "source.database": STRING,
        "source.schema": STRING,
        "source.table": STRING,
        "source.properties": _PROPERTIES,
    }

    def __init__(self, options: DebeziumJsonOptions, table: Table) -> None:
        """Make the reader of the envelopes.

        Raises:
            ConfigError: at a column that the format cannot fill.
        """
        super().__init__(options.rules(), table)
        self._has_schema = options.schema_include
        if "schema" in self.wanted and not options.schema_include:
            column = next(column for column in table.columns if column.metadata_key == "schema")
            reason = f"METADATA key 'schema' of column {column.name} wants 'debezium-json.schema-include' = 'true'"
            raise ConfigError(f"format {self.NAME}: {reason}", column.place)
        row = row_of(self.physical)
        self._members = [("before", row), ("after", row), ("op", STRING)]
        if "ingestion-timestamp" in self.wanted:
            self._members.append(("ts_ms", BIGINT))
        if inner := self._source():
            self._members.append(("source", inner))
        self._reader = JsonRows(self._envelope(), self.rules)

    def _source(self) -> LogicalType | None:
        """What is read of `source`; as a MAP, which is slower, only if all of it is wanted."""
        if "source.properties" in self.wanted:
            return _PROPERTIES
        names = [member for key, member in _SOURCE.items() if key in self.wanted]
        return row_of([(name, BIGINT if name == "ts_ms" else STRING) for name in names]) if names else None

    def _envelope(self) -> list[tuple[str, LogicalType]]:
        if not self._has_schema:
            return self._members
        schema = [("schema", STRING)] if "schema" in self.wanted else []
        return [("payload", row_of(self._members)), *schema]

    def read(self, documents: pa.Array) -> Envelopes:
        """Before, after and op, out of the payload if there is one."""
        parsed = self._reader.parse(documents)
        envelopes = Envelopes.of(parsed, [name for name, _ in self._envelope()])
        if not self._has_schema:
            return envelopes
        inner = dict(zip((name for name, _ in self._members), envelopes.columns["payload"].flatten(), strict=True))
        return Envelopes({**envelopes.columns, **inner}, parsed.places, parsed.errors, parsed.nulled)

    def changes(self, documents: pa.Array, envelopes: Envelopes) -> Changes:
        """Both rows of an update, the one row of any other change."""
        before, after, op = (envelopes.columns[name] for name in ("before", "after", "op"))
        actions, is_unknown = actions_of(op, _OPERATIONS)
        has_schema = f"'debezium-json.schema-include' is {'true' if self._has_schema else 'false'}"
        remedies = {None: has_schema, "t": "a truncation does not say which rows are gone"}
        wrong = unknown_operations("op", op, is_unknown, _OPERATIONS, remedies)
        has_before, has_after = as_mask(before.is_valid()), as_mask(after.is_valid())
        wants_before = (actions == RowKind.UPDATE_AFTER) | (actions == RowKind.DELETE)
        wants_after = (actions == RowKind.UPDATE_AFTER) | (actions == RowKind.INSERT)
        for place in np.flatnonzero(wants_before & ~has_before).tolist():
            wrong[place] = (
                f"column before: found nothing in {'an update' if wants_after[place] else 'a delete'}, wanted the row"
                " before it; a table in Postgres has to have REPLICA IDENTITY FULL"
            )
        for place in np.flatnonzero(wants_after & ~has_after).tolist():
            wrong.setdefault(place, "column after: found nothing, wanted the row after the change")
        lacking = np.zeros(len(op), bool)
        lacking[list(wrong)] = True
        owners = np.flatnonzero((actions >= 0) & ~lacking)
        taken = pa.array(owners)
        changes = Images(
            owners, actions[owners].astype(np.int8), before.take(taken).flatten(), after.take(taken).flatten()
        ).changes()
        changes.wrong = wrong
        return changes

    def metadata(self, key: str, envelopes: Envelopes) -> pa.Array:
        """Times in milliseconds, names as they are."""
        if key == "schema":
            return envelopes.columns["schema"]
        if key == "ingestion-timestamp":
            return milliseconds(envelopes.columns["ts_ms"])
        source = envelopes.columns["source"]
        if key == "source.properties":
            return source
        member = _SOURCE[key]
        if pa.types.is_map(source.type):
            values = pc.map_lookup(source, member, "last")
        else:
            values = source.flatten()[source.type.get_field_index(member)]
        return milliseconds(values) if key == "source.timestamp" else values
