"""Many Kafka records to columns of csv fields: the same as `split_record` for each, at pyarrow's speed.

Records without a special character, and well-formed quoted ones, are joined line by line and split by pyarrow.csv: no
line of such a block can be anything but one record, so rows never shift. What is left goes through `split_record`.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from vector_assets.engine.errors import RecordError
from vector_assets.formats.csv_record import CommentError, Dialect, split_record
from vector_assets.formats.grammar import JAVA_SPACE, Mask, as_mask, byte_view, not_utf8, rune, trim, without

STAND_IN = "\x1f"
"""What pyarrow gets for a delimiter that is not ASCII; records that hold it themselves are split one by one."""
_BOM = "\ufeff"
_NUL_IN_FRONT = r"\A(?s:.?)\x00"
_FEW = 64
_SAMPLE = 64

Places = npt.NDArray[np.int64]


class Part(NamedTuple):
    """Columns of the records at these places."""

    columns: list[pa.Array]
    places: Places


class Group(NamedTuple):
    """Records that pyarrow may split, as they stand at these places."""

    texts: pa.Array
    places: Places
    quoted: bool

    def at(self, rows: npt.NDArray[np.int64]) -> "Group":
        """The group's records with these numbers."""
        return Group(self.texts.take(pa.array(rows)), self.places[rows], self.quoted)


@dataclass(slots=True)
class Fields:
    """What became of records: `columns[i][j]` is field i of record `places[j]`, in order; the others have errors.

    `comments` are records without a row that the options tell us to pass over; `nulled` counts missing fields.
    """

    columns: list[pa.Array] = field(default_factory=list)
    places: Places = field(default_factory=lambda: np.empty(0, np.int64))
    errors: dict[int, str] = field(default_factory=dict)
    comments: int = 0
    nulled: int = 0


class RecordSplitter:
    """Splits records into `width` fields; `lenient` makes missing fields null and passes over comments."""

    def __init__(self, dialect: Dialect, width: int, *, lenient: bool = False) -> None:
        self._dialect = dialect
        self._width = width
        self._lenient = lenient
        self._delimiter = dialect.delimiter if dialect.delimiter.isascii() else STAND_IN
        special = ["\n", "\r", dialect.quote, dialect.escape]
        if self._delimiter != dialect.delimiter:
            special.append(STAND_IN)
        self._special = [char for char in special if char]
        self._plain = f"\\A[^{''.join(map(rune, self._special))}]+\\z"
        self._well_formed = _well_formed(dialect)

    def split(self, values: pa.Array) -> Fields:
        """The fields of binary values, all together small enough for one buffer."""
        result = Fields()
        texts = values.view(pa.string())
        empty = as_mask(pc.equal(pc.binary_length(values), 0))
        null = as_mask(values.is_null())
        result.errors |= dict.fromkeys(np.flatnonzero(empty).tolist(), "empty value")
        result.errors |= dict.fromkeys(np.flatnonzero(null).tolist(), "null value (a tombstone); csv has no deletes")
        result.errors |= dict.fromkeys(not_utf8(texts, 0), "bad UTF-8")
        lines = self._without_line_ends(texts)
        odd = self._odd(lines) | as_mask(pc.equal(pc.binary_length(lines), 0))
        odd[list(result.errors)] = False
        left_out = odd.copy()
        left_out[list(result.errors)] = True
        places = np.flatnonzero(~left_out)
        parts = self._parse(Group(without(lines, left_out), places, quoted=False), result)
        if odd.any():
            parts += self._sort_out(texts.filter(pa.array(odd)), np.flatnonzero(odd), result)
        result.columns, result.places = _in_order(parts, self._width)
        return result

    def _without_line_ends(self, texts: pa.Array) -> pa.Array:
        """The texts as they are, or, where many end in a line end and none is escaped, without line ends behind."""
        if self._dialect.escape or not len(texts):
            return texts
        sample = texts.slice(0, _SAMPLE)
        ends = pc.sum(pc.match_substring_regex(sample, r"[\r\n]\z")).as_py() or 0
        return pc.ascii_rtrim(texts, characters="\r\n") if ends > len(sample) // 8 else texts

    def _odd(self, texts: pa.Array) -> Mask:
        """Records with a special character, a byte order mark, a NUL in front, or a comment."""
        odd = np.zeros(len(texts), bool)
        data, bounds = byte_view(texts)
        blob = data[bounds[0] : bounds[-1]].tobytes()
        for mark in self._special if blob.isascii() else [*self._special, _BOM]:
            if mark.encode() in blob:
                odd |= _holding(mark.encode(), blob, texts, bounds)
        if b"\0" in blob:
            odd |= as_mask(pc.match_substring_regex(texts, _NUL_IN_FRONT))
        if self._dialect.comments:
            odd |= as_mask(pc.match_substring_regex(texts, r"\A[ #]"))
        return odd

    def _sort_out(self, odd: pa.Array, places: Places, result: Fields) -> list[Part]:
        """Odd records that pyarrow may split after all (a final line end, well-formed quotes), and the others."""
        trimmed = pc.ascii_rtrim(odd, characters="\r\n")
        risky = as_mask(pc.match_substring_regex(trimmed, rf"\A\z|\A{_BOM}|{_NUL_IN_FRONT}"))
        if self._delimiter != self._dialect.delimiter:
            risky |= as_mask(pc.match_substring(trimmed, STAND_IN))
        if self._dialect.comments:
            risky |= as_mask(pc.match_substring_regex(trimmed, r"\A[ #]"))
        plain = ~risky & as_mask(pc.match_substring_regex(trimmed, self._plain))
        quoted = np.zeros(len(odd), bool)
        if self._well_formed:
            quoted = ~risky & ~plain & as_mask(pc.match_substring_regex(trimmed, self._well_formed))
        slow = ~(plain | quoted)
        parts = self._parse(Group(trimmed.filter(pa.array(plain)), places[plain], quoted=False), result)
        parts += self._parse(Group(trimmed.filter(pa.array(quoted)), places[quoted], quoted=True), result)
        return [*parts, self._one_by_one(odd.filter(pa.array(slow)), places[slow], result)]

    def _one_by_one(self, texts: pa.Array, places: Places, result: Fields) -> Part:
        """Slow path for isolated records."""
        rows: list[list[str | None]] = []
        kept: list[int] = []
        for place, text in zip(places.tolist(), texts.to_pylist(), strict=True):
            try:
                rows.append(self._fitted(split_record(text, self._dialect), result))
                kept.append(place)
            except CommentError as error:
                if self._lenient:
                    result.comments += 1
                else:
                    result.errors[place] = f"{error}; csv.ignore-parse-errors=true passes over comments"
            except RecordError as error:
                result.errors[place] = str(error)
        columns = [pa.array([row[i] for row in rows], pa.string()) for i in range(self._width)]
        return Part(columns, np.array(kept, np.int64))

    def _fitted(self, fields: list[str], result: Fields) -> list[str | None]:
        missing = self._width - len(fields)
        if missing == -1 and not fields[-1].strip(JAVA_SPACE):
            return [*fields[:-1]]
        if missing < 0 or (missing and not self._lenient):
            raise RecordError(_wrong_width(len(fields), self._width))
        result.nulled += missing
        return [*fields, *([None] * missing)]

    def _parse(self, group: Group, result: Fields) -> list[Part]:
        if not len(group.texts):
            return []
        try:
            columns, wrong = self._read(group, self._width)
        except pa.ArrowInvalid:
            return [self._one_by_one(group.texts, group.places, result)]
        if len(columns[0]) + len(wrong) != len(group.texts):
            return [self._one_by_one(group.texts, group.places, result)]
        if not wrong:
            return [Part(columns, group.places)]
        rows, widths = np.array(list(wrong)), np.array(list(wrong.values()))
        kept = np.ones(len(group.texts), bool)
        kept[rows] = False
        parts = [Part(columns, group.places[kept])]
        for width in np.unique(widths).tolist():
            parts.append(self._refit(group.at(rows[widths == width]), width, result))
        return parts

    def _refit(self, group: Group, width: int, result: Fields) -> Part:
        """Records of another width: a last blank field is no field, missing ones may be null, the rest is wrong."""
        missing = self._width - width
        if missing != -1 and not (missing > 0 and self._lenient):
            result.errors |= dict.fromkeys(group.places.tolist(), _wrong_width(width, self._width))
            return Part([pa.array([], pa.string())] * self._width, np.empty(0, np.int64))
        columns, wrong = self._read(group, width)
        if wrong:
            return self._one_by_one(group.texts, group.places, result)
        if missing > 0:
            result.nulled += missing * len(group.texts)
            return Part([*columns, *[pa.nulls(len(group.texts), pa.string())] * missing], group.places)
        good = as_mask(pc.equal(trim(columns.pop()), ""))
        columns = [column.filter(pa.array(good)) for column in columns]
        result.errors |= dict.fromkeys(group.places[~good].tolist(), _wrong_width(width, self._width))
        return Part(columns, group.places[good])

    def _read(self, group: Group, width: int) -> tuple[list[pa.Array], dict[int, int]]:
        """Columns of the records that have `width` fields, and the width of each that has not."""
        texts = group.texts
        if self._delimiter != self._dialect.delimiter:
            texts = pc.replace_substring(texts, self._dialect.delimiter, self._delimiter)
        lines = pc.binary_join_element_wise(texts, "", "\n")
        data, bounds = byte_view(lines)
        wrong: dict[int, int] = {}

        def note(row: pa_csv.InvalidRow) -> str:
            wrong[row.number - 1] = row.actual_columns
            return "skip"

        names = [str(i) for i in range(width)]
        table = pa_csv.read_csv(
            pa.py_buffer(data[: bounds[-1]]),
            read_options=pa_csv.ReadOptions(use_threads=False, column_names=names, block_size=int(bounds[-1])),
            parse_options=pa_csv.ParseOptions(
                delimiter=self._delimiter,
                quote_char=self._dialect.quote if group.quoted and self._dialect.quote else False,
                escape_char=self._dialect.escape if group.quoted and self._dialect.escape else False,
                newlines_in_values=group.quoted,
                ignore_empty_lines=False,
                invalid_row_handler=note,
            ),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()),
                null_values=[],
                strings_can_be_null=False,
                check_utf8=False,
            ),
        )
        columns = [_one_array(column) for column in table.columns]
        if self._delimiter != self._dialect.delimiter and group.quoted:
            columns = [pc.replace_substring(c, self._delimiter, self._dialect.delimiter) for c in columns]
        return columns, wrong


def _wrong_width(found: int, wanted: int) -> str:
    return f"found {found} columns, wanted {wanted}"


def _well_formed(dialect: Dialect) -> str | None:
    """Pattern of records with quotes or escapes that pyarrow reads as Jackson does; None: there are none such."""
    delimiter, quote, escape = dialect.delimiter, dialect.quote, dialect.escape
    marks = [char for char in (quote, escape) if char]
    if not marks or not all(char.isascii() for char in marks) or quote == escape:
        return None
    escaped = f"|{rune(escape)}[^0nrt\\r\\n]" if escape else ""
    stops = rune(delimiter) + (rune(escape) if escape else "")
    inside = f"(?:[^{stops}\\r\\n]{escaped})*"
    value = f"(?:(?:[^{stops}\\r\\n{rune(quote) if quote else ''}]{escaped}){inside})?"
    if quote:
        marked = "".join(map(rune, marks))
        value = f"(?:{rune(quote)}(?:[^{marked}]|{rune(quote) * 2}{escaped})*{rune(quote)}|{value})"
    return f"\\A{value}(?:{rune(delimiter)}{value})*\\z"


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _in_order(parts: list[Part], width: int) -> Part:
    filled = [part for part in parts if len(part.places)]
    if not filled:
        return Part([pa.array([], pa.string())] * width, np.empty(0, np.int64))
    if len(filled) == 1:
        return filled[0]
    places = np.concatenate([part.places for part in filled])
    order = np.argsort(places, kind="stable")
    taken = pa.array(order)
    columns = [pa.concat_arrays([part.columns[i] for part in filled]).take(taken) for i in range(width)]
    return Part(columns, places[order])


def _holding(mark: bytes, blob: bytes, texts: pa.Array, bounds: npt.NDArray[np.int32]) -> Mask:
    """Records that hold the mark: looked up one by one while there are few, else all at once."""
    found = np.zeros(len(texts), bool)
    place = blob.find(mark)
    for _ in range(_FEW):
        if place < 0:
            return found
        record = int(np.searchsorted(bounds, bounds[0] + place, side="right")) - 1
        found[record] = True
        place = blob.find(mark, int(bounds[record + 1] - bounds[0]))
    return as_mask(pc.match_substring(texts, mark.decode()))
