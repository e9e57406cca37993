"""Index names that are made from columns: `visits-{site}-{at|yyyy.MM.dd}`, as Flink's connector has them.

A row's index must follow from the row alone, for a batch that is made again has to find its documents.
"""

import re
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.engine.errors import PlanError
from vector_assets.engine.registry import nearest
from vector_assets.sinks.kinds import kind_of

_FORBIDDEN = ' "*\\<|,>/?#:'
_PLACE = re.compile(r"\{([^{}|]*)(\|[^{}]*)?\}")
_GOOD_NAME = r"^[^A-Z \"*\\<|,>/?#:{}]{1,255}$"
_LETTERS = {
    "yyyy": "%Y", "uuuu": "%Y", "yy": "%y", "MM": "%m", "dd": "%d", "DDD": "%j", "HH": "%H", "mm": "%M", "ss": "%S",
}  # fmt: skip
"""Java's spelling of the parts of a date to that of strftime."""
_DATE_PARTS = re.compile(r"('[^']*')|((?P<letter>[A-Za-z])(?P=letter)*)|([^A-Za-z])")
_DEFAULTS = {"DATE": "yyyy_MM_dd", "TIMESTAMP": "yyyy_MM_dd_HH_mm_ss"}
"""What Flink's connector takes for `{column|}`."""
_PLAIN = frozenset({"STRING", "INT", "BOOLEAN", "DATE"})


@dataclass(frozen=True, slots=True)
class Place:
    """A column in a name; `pattern` is of its date, empty for the type's own, None for the value as it is."""

    column: str
    pattern: str | None


@dataclass(frozen=True)
class Pattern:
    """A name with columns in it: texts and places by turns, a text first and last."""

    text: str
    texts: tuple[str, ...]
    places: tuple[Place, ...]

    @classmethod
    def parse(cls, text: str) -> "Pattern | None":
        """The pattern, None for a name without columns.

        Raises:
            ValueError: it is not one that rows could be written by; the message says why.
        """
        if "{" not in text and "}" not in text:
            return None
        parts = _PLACE.split(text)
        texts, places = tuple(parts[::3]), []
        if any("{" in each or "}" in each for each in texts):
            raise ValueError("want {column} or {column|yyyy-MM-dd} in it: a brace has no other")
        for column, pattern in zip(parts[1::3], parts[2::3], strict=True):
            if column.strip() == "now()":
                raise ValueError(
                    "{now()} is another time when a batch is made again, which would double its rows in another index:"
                    " use a column, such as the time of the record"
                )
            if not column:
                raise ValueError("want {column} or {column|yyyy-MM-dd}: the column is missing")
            places.append(Place(column, pattern[1:] if pattern is not None else None))
            if pattern:
                _strftime(pattern[1:])
        if not texts[0] or texts[0][0] in "-_+.":
            raise ValueError("want a fixed beginning, as in visits-{site}: the indices are found again by it")
        return cls(text, texts, tuple(places))

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns in it."""
        return tuple(dict.fromkeys(place.column for place in self.places))

    @cached_property
    def wildcard(self) -> str:
        """What finds every index of the pattern."""
        return "*".join(self.texts)

    @cached_property
    def example(self) -> str:
        """A name that the pattern might make."""
        return "0".join(self.texts)

    def check(self, schema: pa.Schema) -> None:
        """Make sure that rows of `schema` have the columns, in types that names are made of.

        Raises:
            PlanError: a column is missing or of another type.
        """
        for place in self.places:
            if place.column not in schema.names:
                raise PlanError(
                    f"opensearch: 'index' = '{self.text}': there is no column"
                    f" {place.column}{nearest(place.column, schema.names)}; columns: {', '.join(schema.names)}"
                )
            kind = kind_of(schema.field(place.column).type)
            if place.pattern is not None and kind not in _DEFAULTS:
                raise PlanError(
                    f"opensearch: 'index' = '{self.text}': {place.column} is {kind}; a pattern of a date is for DATE"
                    " and TIMESTAMP"
                )
            if place.pattern is None and kind not in _PLAIN:
                raise PlanError(
                    f"opensearch: 'index' = '{self.text}': {place.column} is {kind}, which needs a pattern, as in"
                    f" {{{place.column}|yyyy-MM-dd}}; without one: {', '.join(sorted(_PLAIN))}"
                )

    def names(self, rows: pa.Table) -> pa.ChunkedArray:
        """The index of each row; null where no name can be made: a null, an upper-case letter, a wildcard."""
        parts: list[pa.ChunkedArray | str] = [self.texts[0]]
        for place, text in zip(self.places, self.texts[1:], strict=True):
            parts += [_spelled(rows.column(place.column), place.pattern), text]
        made = pc.binary_join_element_wise(*parts, "")
        return pc.if_else(pc.fill_null(pc.match_substring_regex(made, _GOOD_NAME), fill_value=False), made, None)


def check_name(name: str) -> str:
    """A name without columns, checked.

    Raises:
        ValueError: no index can be called that.
    """
    if name != name.lower() or name[:1] in "-_+" or not set(_FORBIDDEN).isdisjoint(name):
        raise ValueError("an index has a lower-case name without spaces, wildcards and commas")
    return name


def _spelled(values: pa.ChunkedArray, pattern: str | None) -> pa.ChunkedArray:
    if pattern is None:
        return values.cast(pa.string())
    kind = values.type
    if pa.types.is_timestamp(kind):
        # whole seconds, or %S has a fraction
        values = pc.floor_temporal(values, unit="second").cast(pa.timestamp("s", kind.tz))
    return pc.strftime(values, format=_strftime(pattern or _DEFAULTS[kind_of(kind)]), locale="C")


def _strftime(pattern: str) -> str:
    """Java's pattern in strftime's letters.

    Raises:
        ValueError: it has a letter that is not supported.
    """
    out = []
    for quoted, word, _, other in _DATE_PARTS.findall(pattern):
        if word and word not in _LETTERS:
            raise ValueError(f"{word!r} in the pattern {pattern!r} of a date; known: {', '.join(_LETTERS)}")
        out.append(_LETTERS[word] if word else (quoted[1:-1] or other).replace("%", "%%"))
    return "".join(out)
