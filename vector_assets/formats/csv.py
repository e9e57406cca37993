"""Format csv: one Kafka record is one csv line, with Flink's options and Flink's reading of values.

What fails a Flink job is rejected here. So is what Flink would land as something that the record does not say: a second
line (Flink drops it), a BOOLEAN other than true and false (false), a DECIMAL out of range (null), a FLOAT or DOUBLE out
of range (Infinity), a day that the calendar does not have (another day), surplus elements of a ROW (dropped), UTF-16
(taken for text). `tests/formats/flink_csv.json` holds what Flink 1.20.1 made of several hundred records.
"""

import re
from typing import Annotated, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BeforeValidator, Field, model_validator

from vector_assets.engine.core import POSITION, REJECT_SCHEMA, Decoded, rejects
from vector_assets.engine.options import Flag, Options
from vector_assets.engine.schema import Table
from vector_assets.formats.columns import physical_columns
from vector_assets.formats.csv_record import Dialect
from vector_assets.formats.csv_split import Fields, RecordSplitter
from vector_assets.formats.grammar import Mask, without
from vector_assets.formats.pieces import pieces
from vector_assets.formats.text_values import Parsed, TextRules, check_type, parse

_FOUND_CHARS = 60
_JAVA_ESCAPE = re.compile(r"\\(?:u+([0-9A-Fa-f]{4})|([0-3]?[0-7]{1,2})|(.)|\Z)", re.DOTALL)
_JAVA_LETTERS = {"t": "\t", "n": "\n", "r": "\r", "b": "\b", "f": "\f"}


def unescape_java(text: object) -> str:
    """`\\t`, `\\u0001`, `\\1` and so on as the character they name, by Java's rules."""

    def char(match: re.Match[str]) -> str:
        code, octal, letter = match.groups()
        if code or octal:
            return chr(int(code, 16) if code else int(octal, 8))
        return _JAVA_LETTERS.get(letter, letter) if letter else ""

    return _one_char(_JAVA_ESCAPE.sub(char, str(text)), text)


def _one_char(text: object, found: object = None) -> str:
    if not isinstance(text, str) or len(text) != 1 or ord(text) > 0xFFFF:
        raise ValueError(f"want exactly one character, found {text if found is None else found!r}")
    if text in "\r\n":
        raise ValueError("a line end cannot be this character")
    return text


Char = Annotated[str, BeforeValidator(_one_char)]
JavaChar = Annotated[str, BeforeValidator(unescape_java)]


class CsvOptions(Options):
    """Flink's options of the csv format, as far as a source has a use for them."""

    field_delimiter: JavaChar = Field(",", alias="csv.field-delimiter")
    """One character between fields; Java escapes such as `\\t` and `\\u0001` are read."""
    quote_character: Char = Field('"', alias="csv.quote-character")
    """One character around values that hold delimiters or line ends; doubled inside such a value."""
    disable_quote_character: Flag = Field(default=False, alias="csv.disable-quote-character")
    """Quotes are ordinary characters; not together with csv.quote-character."""
    allow_comments: Flag = Field(default=False, alias="csv.allow-comments")
    """Lines that begin with `#` are comments. A record of nothing else is rejected, or passed over (and counted as
    filtered) where csv.ignore-parse-errors is true."""
    ignore_parse_errors: Flag = Field(default=False, alias="csv.ignore-parse-errors")
    """A field that cannot be read, or is missing, is null and counted; a record that cannot be split is rejected."""
    array_element_delimiter: Char = Field(";", alias="csv.array-element-delimiter")
    """One character between the elements of an ARRAY or ROW."""
    escape_character: Char | None = Field(None, alias="csv.escape-character")
    """One character that takes away the special meaning of the next one; `n`, `r`, `t` and `0` after it are control
    characters. Off by default."""
    null_literal: str | None = Field(None, alias="csv.null-literal")
    """The text that means null, quoted or not, in a field or an array element. Off by default."""

    @model_validator(mode="after")
    def _no_conflict(self) -> Self:
        if self.disable_quote_character and "quote_character" in self.model_fields_set:
            raise ValueError("csv.quote-character is set while csv.disable-quote-character is true; want one of them")
        special = {"csv.field-delimiter": self.field_delimiter, "csv.escape-character": self.escape_character}
        if not self.disable_quote_character:
            special["csv.quote-character"] = self.quote_character
        for name in ("csv.quote-character", "csv.escape-character"):
            if special.get(name) == self.field_delimiter:
                raise ValueError(f"csv.field-delimiter and {name} are the same character {self.field_delimiter!r}")
        return self

    def dialect(self) -> Dialect:
        """How the records are written."""
        quote = None if self.disable_quote_character else self.quote_character
        return Dialect(self.field_delimiter, quote, self.escape_character, self.allow_comments)

    def rules(self) -> TextRules:
        """How the fields' texts are read."""
        return TextRules(self.null_literal, self.array_element_delimiter, self.ignore_parse_errors)


class CsvDecoder:
    """Raw csv records to rows of the table's physical columns. Immutable, so threads may share it."""

    def __init__(self, options: CsvOptions, table: Table) -> None:
        """Refuse tables that the format cannot fill.

        Raises:
            ConfigError: no physical column, a metadata column, or a type that csv has no text for; names the column.
        """
        self._columns = physical_columns("format csv", table)
        for name, kind in self._columns:
            check_type(name, kind)
        fields = [pa.field(name, kind.arrow, kind.nullable) for name, kind in self._columns]
        self._schema = pa.schema([*fields, pa.field(POSITION, pa.int64(), nullable=False)])
        self._rules = options.rules()
        self._splitter = RecordSplitter(options.dialect(), len(fields), lenient=options.ignore_parse_errors)

    def decode(self, raw: pa.RecordBatch | pa.Table) -> Decoded:
        """Rows and rejects of RAW_SCHEMA + `_position`, both in the order of the records.

        `filtered` counts comment records that the options pass over: rows + rejects + filtered = records.
        """
        done = [self._piece(values, positions) for values, positions in pieces(raw)]
        return Decoded(
            rows=pa.concat_tables([self._schema.empty_table(), *(piece.rows for piece in done)]),
            rejected=pa.concat_tables([REJECT_SCHEMA.empty_table(), *(piece.rejected for piece in done)]),
            nulled=sum(piece.nulled for piece in done),
            filtered=sum(piece.filtered for piece in done),
        )

    def _piece(self, values: pa.Array, positions: pa.Array) -> Decoded:
        fields = self._splitter.split(values)
        rows, nulled = self._typed(fields, positions)
        wrong = sorted(fields.errors)
        texts = pa.array([f"csv: {fields.errors[place]}" for place in wrong], pa.string())
        rejected = rejects(positions.take(pa.array(wrong, pa.int64())), "decode", texts)
        return Decoded(rows, rejected, nulled + fields.nulled, fields.comments)

    def _typed(self, fields: Fields, positions: pa.Array) -> tuple[pa.Table, int]:
        """The rows without a bad value, and how many values were set to null; the other rows get errors."""
        parsed = [
            parse(texts, kind, self._rules) for texts, (_, kind) in zip(fields.columns, self._columns, strict=True)
        ]
        arrays = [column.values for column in parsed]
        arrays.append(positions if len(fields.places) == len(positions) else positions.take(pa.array(fields.places)))
        bad = self._first_bad(parsed, fields)
        if bad is not None:
            arrays = [without(array, bad) for array in arrays]
        return pa.Table.from_arrays(arrays, schema=self._schema), sum(column.nulled for column in parsed)

    def _first_bad(self, parsed: list[Parsed], fields: Fields) -> Mask | None:
        """Rows with a bad value; the first bad column of a row is its error."""
        seen: Mask | None = None
        for (name, kind), column, texts in zip(self._columns, parsed, fields.columns, strict=True):
            if column.bad is None:
                continue
            seen = np.zeros(len(texts), bool) if seen is None else seen
            rows = np.flatnonzero(column.bad & ~seen)
            found = pc.utf8_slice_codeunits(texts.take(pa.array(rows)), 0, _FOUND_CHARS).to_pylist()
            for place, text in zip(fields.places[rows].tolist(), found, strict=True):
                shown = "nothing" if text is None else repr(text)
                fields.errors[place] = f"column {name}: found {shown}, wanted {kind}"
            seen |= column.bad
        return seen
