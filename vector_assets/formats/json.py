"""Format json: one Kafka record is one JSON object, with Flink's options and Flink's reading of values.

What fails a Flink job is rejected here. So is what Flink would land as something that the record does not say: a second
value in the record (Flink does not look), 1.5 for an INT (cut), a DECIMAL out of range (null), a FLOAT or DOUBLE out of
range (Infinity), a BOOLEAN other than true and false (false), half a surrogate pair (a question mark).
`tests/formats/flink_json.json` holds what Flink 1.20.1 made of several hundred records.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

import pyarrow as pa
from pydantic import BeforeValidator, Field, model_validator

from vector_assets.engine.core import POSITION, REJECT_SCHEMA, Decoded, rejects
from vector_assets.engine.options import Flag, Options
from vector_assets.engine.schema import Table
from vector_assets.formats.columns import physical_columns
from vector_assets.formats.json_rows import JsonRows, JsonRules
from vector_assets.formats.pieces import in_one, pieces

Upper = Annotated[str, BeforeValidator(lambda text: str(text).upper())]


class JsonOptions(Options):
    """Flink's options of the json format; those for writing are checked and have no effect on a source."""

    idle: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(
            (
                "json.map-null-key.mode",
                "json.map-null-key.literal",
                "json.encode.decimal-as-plain-number",
                "json.encode.ignore-null-fields",
            ),
            "it is for writing, this pipeline reads",
        ),
        "json.decode.json-parser.enabled": "it chooses one of Flink's parsers",
    }

    fail_on_missing_field: Flag = Field(default=False, alias="json.fail-on-missing-field")
    """A record that lacks a declared field is rejected, instead of the field being null; not together with
    json.ignore-parse-errors."""
    ignore_parse_errors: Flag = Field(default=False, alias="json.ignore-parse-errors")
    """A value that does not fit its column is null and counted; a record that is no JSON object is rejected."""
    timestamp_format: Literal["SQL", "ISO-8601"] = Field("SQL", alias="json.timestamp-format.standard")
    """Spelling of TIMESTAMP and TIMESTAMP_LTZ: `SQL` (`2026-03-01 12:00:00.123`) or `ISO-8601`
    (`2026-03-01T12:00:00.123`), either with a final `Z` for TIMESTAMP_LTZ."""
    map_null_key_mode: Literal["FAIL", "DROP", "LITERAL"] = Field("FAIL", alias="json.map-null-key.mode")
    """For writing only: no effect here."""
    map_null_key_literal: str = Field("null", alias="json.map-null-key.literal")
    """For writing only: no effect here."""
    decimal_as_plain_number: Flag = Field(default=False, alias="json.encode.decimal-as-plain-number")
    """For writing only: no effect here."""
    ignore_null_fields: Flag = Field(default=False, alias="json.encode.ignore-null-fields")
    """For writing only: no effect here."""
    json_parser: Flag = Field(default=True, alias="json.decode.json-parser.enabled")
    """Which of Flink's two parsers to use: no effect here."""

    @model_validator(mode="after")
    def _no_conflict(self) -> Self:
        if self.fail_on_missing_field and self.ignore_parse_errors:
            raise ValueError(
                "json.fail-on-missing-field and json.ignore-parse-errors are both true; want at most one of them"
            )
        return self

    def rules(self) -> JsonRules:
        """How documents are read."""
        return JsonRules(self.ignore_parse_errors, self.fail_on_missing_field, self.timestamp_format)


class JsonDecoder:
    """Raw json records to rows of the table's physical columns. Immutable, so threads may share it."""

    def __init__(self, options: JsonOptions, table: Table) -> None:
        """Refuse tables that the format cannot fill.

        Raises:
            ConfigError: no physical column, a metadata column, or a MAP whose keys are not text; names the column.
        """
        columns = physical_columns("format json", table)
        fields = [pa.field(name, kind.arrow, kind.nullable) for name, kind in columns]
        self._schema = pa.schema([*fields, pa.field(POSITION, pa.int64(), nullable=False)])
        self._rows = JsonRows(columns, options.rules())

    def decode(self, raw: pa.RecordBatch | pa.Table) -> Decoded:
        """Rows and rejects of RAW_SCHEMA + `_position`, both in the order of the records."""
        done = [self._piece(values, positions) for values, positions in pieces(raw)]
        rejected = pa.concat_tables([REJECT_SCHEMA.empty_table(), *(piece.rejected for piece in done)])
        nulled, rows = sum(piece.nulled for piece in done), [piece.rows for piece in done]
        done.clear()
        return Decoded(rows=in_one(rows, self._schema), rejected=rejected, nulled=nulled)

    def _piece(self, values: pa.Array, positions: pa.Array) -> Decoded:
        parsed = self._rows.parse(values)
        kept = positions if len(parsed.places) == len(positions) else positions.take(pa.array(parsed.places))
        rows = pa.Table.from_arrays([*parsed.columns, kept], schema=self._schema)
        texts = pa.array([f"json: {reason}" for reason in parsed.errors.values()], pa.string())
        rejected = rejects(positions.take(pa.array(list(parsed.errors), pa.int64())), "decode", texts)
        return Decoded(rows, rejected, parsed.nulled)
