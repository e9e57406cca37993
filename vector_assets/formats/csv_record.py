"""One Kafka record as one csv line, split as Flink's reader (Jackson) splits it, stricter where that loses text."""

import re
from dataclasses import dataclass

from vector_assets.engine.errors import RecordError
from vector_assets.formats.grammar import JAVA_SPACE

_ESCAPED = {"0": "\0", "n": "\n", "r": "\r", "t": "\t"}
_COMMENTS = re.compile(r"(?:[ \r\n]|#[^\r\n]*)*")


@dataclass(frozen=True, slots=True)
class Dialect:
    """How records are written; a None quote or escape is switched off."""

    delimiter: str = ","
    quote: str | None = '"'
    escape: str | None = None
    comments: bool = False


class CommentError(RecordError):
    """The record holds comments and no row."""


def split_record(text: str, dialect: Dialect) -> list[str]:
    """The fields of one record, a byte order mark left out.

    Raises:
        CommentError: nothing but comments.
        RecordError: empty, not UTF-8, a quote is not closed, something follows a closing quote, or a second line.
    """
    if "\0" in text[:2] and len(text) > 1 and (text[0] == "\0" or text[0].isascii()):
        raise RecordError("a NUL byte in front: looks like UTF-16 or UTF-32, wanted UTF-8")
    text = text.removeprefix("\ufeff")
    place = _after_comments(text, 0) if dialect.comments else 0
    if place == len(text):
        raise CommentError("a comment without a row") if "#" in text else RecordError("empty value")
    fields, place = _line(text, place, dialect)
    if dialect.comments:
        place = _after_comments(text, place)
    if text[place:].strip(JAVA_SPACE):
        raise RecordError("a second line in the record (Flink would drop it); wanted one row")
    return fields


def _line(text: str, place: int, dialect: Dialect) -> tuple[list[str], int]:
    ends = {dialect.delimiter, "\r", "\n", dialect.escape}
    plain = re.compile(f"[^{_listed(ends)}]*")
    stop = re.compile(f"[{_listed({dialect.quote, dialect.escape})}]") if dialect.quote else None
    fields: list[str] = []
    while True:
        if stop and text.startswith(dialect.quote or "", place):
            value, place = _quoted(text, place + 1, dialect, stop)
        else:
            value, place = _unquoted(text, place, dialect, plain)
        fields.append(value)
        if not text.startswith(dialect.delimiter, place):
            return fields, place
        place += 1


def _listed(chars: set[str | None]) -> str:
    return "".join(rf"\U{ord(char):08x}" for char in chars if char)


def _after_comments(text: str, place: int) -> int:
    """Past blanks, blank lines and lines that begin with `#`."""
    match = _COMMENTS.match(text, place)
    return match.end() if match else place


def _unescaped(text: str, place: int) -> str:
    if place >= len(text):
        raise RecordError("the record ends in an escape character (a cut line?)")
    return _ESCAPED.get(text[place], text[place])


def _unquoted(text: str, place: int, dialect: Dialect, plain: re.Pattern[str]) -> tuple[str, int]:
    parts = []
    while True:
        match = plain.match(text, place)
        end = match.end() if match else place
        parts.append(text[place:end])
        if not dialect.escape or not text.startswith(dialect.escape, end):
            return "".join(parts), end
        parts.append(_unescaped(text, end + 1))
        place = end + 2


def _quoted(text: str, place: int, dialect: Dialect, stop: re.Pattern[str]) -> tuple[str, int]:
    parts = []
    while True:
        match = stop.search(text, place)
        if not match:
            raise RecordError("a quoted value is not closed (a cut line?)")
        parts.append(text[place : match.start()])
        place = match.end()
        if match[0] != dialect.quote:
            parts.append(_unescaped(text, place))
            place += 1
        elif text.startswith(match[0], place):
            parts.append(match[0])
            place += 1
        else:
            return "".join(parts), _after_quote(text, place, dialect.delimiter)


def _after_quote(text: str, place: int, delimiter: str) -> int:
    """Past white space after a closing quote, to the delimiter, the line's end or the record's end."""
    while place < len(text) and text[place] != delimiter and text[place] not in "\r\n":
        if text[place] > " ":
            raise RecordError(f"found {text[place]!r} after a closing quote, wanted the delimiter {delimiter!r}")
        place += 1
    return place
