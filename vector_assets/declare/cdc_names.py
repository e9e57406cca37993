"""Names of tables as Flink CDC spells them: patterns `db0.\\.*, db1.user_[0-9]+`, and where routes lead."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

_COMMA = re.compile(r"(?<!\\),")
_DOT = re.compile(r"(?<!\\)\.")
_SINK = re.compile(r"[^\s.,]+(?:\.[^\s.,]+)?")


class TablePatterns:
    """Regular expressions of databases and tables; a comma parts two, a dot a database from its table.

    A dot (or a comma) that belongs to an expression has a backslash before it. Upper and lower case are the same.
    """

    def __init__(self, text: str) -> None:
        """Read the patterns.

        Raises:
            ValueError: one is no `database.table`, or no regular expression.
        """
        self.text = text
        self._patterns = [_pattern(part.strip()) for part in _COMMA.split(text) if part.strip()]
        if not self._patterns:
            raise ValueError(r"want database.table, such as shop.orders or shop.\.*")

    def matches(self, database: str, table: str) -> bool:
        """True when one of the patterns is that of the table."""
        return any(each[0].fullmatch(database) and each[1].fullmatch(table) for each in self._patterns)


def _pattern(text: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    parts = [part.replace("\\.", ".").replace("\\,", ",") for part in _DOT.split(text)]
    if len(parts) != 2 or not all(parts):
        raise ValueError(
            rf"want database.table, found {text!r}; a dot of a regular expression is written \. (shop.\.* is every"
            " table of shop)"
        )
    try:
        return re.compile(parts[0], re.IGNORECASE), re.compile(parts[1], re.IGNORECASE)
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from None


@dataclass(frozen=True, slots=True)
class Place:
    """Where rows go: a table, in a database unless the route names none."""

    database: str | None
    table: str

    def __str__(self) -> str:
        return f"{self.database}.{self.table}" if self.database else self.table

    @property
    def identifier(self) -> str:
        """The name with `_` for what no identifier has."""
        return re.sub(r"[^A-Za-z0-9_]", "_", str(self))


def sink_place(text: str) -> Place:
    """A route's `sink-table`.

    Raises:
        ValueError: it names no table.
    """
    if not _SINK.fullmatch(text):
        raise ValueError(f"want database.table or table, found {text!r}")
    database, dot, table = text.partition(".")
    return Place(database, table) if dot else Place(None, database)


@dataclass(frozen=True)
class RouteRule:
    """Tables that match `source` go to `sink`, in which `symbol` stands for the source table's own name."""

    source: str
    sink: str
    symbol: str | None = None

    @cached_property
    def patterns(self) -> TablePatterns:
        """Which tables it is for."""
        return TablePatterns(self.source)

    def place(self, table: str) -> Place:
        """Where a table of that name goes.

        Raises:
            ValueError: what the rule makes of it names no table.
        """
        return sink_place(self.sink.replace(self.symbol, table) if self.symbol else self.sink)


def routed(rules: Iterable[RouteRule], database: str, table: str) -> list[Place]:
    """Every place that a table goes to: those of all the rules that match, else one of its own name."""
    found = [rule.place(table) for rule in rules if rule.patterns.matches(database, table)]
    return list(dict.fromkeys(found)) or [Place(database, table)]
