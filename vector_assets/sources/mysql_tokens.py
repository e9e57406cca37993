"""What a token of the MySQL source says. There is one split, `binlog`: initial snapshot and stream are one line. Pure.

While `table` is set the initial snapshot is under way: tables before it (by full name) and its rows up to the key
`after` are in the target as of `gtid`; nothing of the rest is. Afterwards everything is.
"""

from dataclasses import dataclass, replace
from typing import Any, Self

from vector_assets.clients.mysql import Binlog
from vector_assets.clients.mysql_binlog import Prepared
from vector_assets.clients.mysql_gtid import Gtids
from vector_assets.engine.core import Position, Split, Token

SPLIT: Split = "binlog"


@dataclass(frozen=True, slots=True)
class Place:
    """The next thing to read: after the transactions `gtid` (None: where GTIDs are off), at `file` and `pos`.

    `offset` counts records since the pipeline's start. `skip` is (events, rows of the next one) that were read of the
    transaction that follows; `at` its time in ms; `server` who said so; `done`: nothing is read any more; `open`: a
    ceiling, not a place that was read up to. `epoch` counts the changes of its tables that a reader who follows them
    has seen. `prepared` are distributed transactions with rows that are prepared and not committed yet.
    """

    gtid: str | None = None
    file: str = ""
    pos: int = 4
    offset: int = 0
    at: int = 0
    server: str = ""
    skip: tuple[int, int] | None = None
    table: str | None = None
    after: tuple[Any, ...] | None = None
    done: bool = False
    open: bool = False
    epoch: int | None = None
    prepared: Prepared | None = None

    @classmethod
    def of(cls, token: Token) -> Self:
        """The place that a token means."""
        known: dict[str, Any] = token if isinstance(token, dict) else {}
        lists = {name: tuple(known[name]) for name in ("skip", "after") if known.get(name) is not None}
        if known.get("prepared") is not None:
            lists["prepared"] = tuple(tuple(each) for each in known["prepared"])
        return cls(**({name: known[name] for name in cls.__slots__ if name in known} | lists))

    @classmethod
    def now(cls, binlog: Binlog, **more: Any) -> Self:
        """The end of the binlog."""
        return cls(gtid=gtid_of(binlog.last, binlog), file=binlog.file, pos=binlog.pos, server=binlog.server, **more)

    @property
    def token(self) -> dict[str, Token]:
        """The token, without what it does not say."""
        found = {name: getattr(self, name) for name in type(self).__slots__}
        kept = {name: value for name, value in found.items() if value is not None and value is not False}
        return {name: _plain(value) for name, value in kept.items()}

    @property
    def gtids(self) -> Gtids | None:
        """The transactions before it; None where GTIDs are off."""
        return None if self.gtid is None else Gtids.of(self.gtid)

    @property
    def file_place(self) -> tuple[int, int]:
        """File number and position, to be ordered."""
        return file_number(self.file), self.pos

    def behind(self, end: "Place") -> int:
        """Transactions (without GTIDs: bytes, roughly) from here to another place."""
        ours, theirs = self.gtids, end.gtids
        if ours is not None and theirs is not None:
            return theirs.beyond(ours)
        if self.file_place >= end.file_place:
            return 0
        return max(end.pos - self.pos, 1)

    def moved(self, rows: int) -> "Place":
        """The same place after so many more records."""
        return replace(self, offset=self.offset + rows)


def _plain(value: Any) -> Any:
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


def gtid_of(gtids: Gtids, binlog: Binlog) -> str | None:
    """A server's GTIDs as a token has them: None where they are off."""
    return str(gtids) if binlog.has_gtids else None


def file_number(file: str) -> int:
    """The number that a binlog's name ends with."""
    digits = file.rpartition(".")[2]
    return int(digits) if digits.isdecimal() else 0


def counted(position: Position, frontier: Position) -> int:
    """Records between two places that were read up to; transactions to a frontier, 1 more during the snapshot."""
    place, end = Place.of(position.get(SPLIT)), Place.of(frontier.get(SPLIT))
    if SPLIT in frontier and not end.open:
        return max(end.offset - place.offset, 0)
    if place.done or SPLIT not in frontier:
        return 0
    return place.behind(end) + (place.table is not None)
