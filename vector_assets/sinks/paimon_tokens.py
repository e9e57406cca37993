"""Positions and batches in the table's own snapshots: what makes a batch land once.

Every snapshot of ours carries as properties where each pipeline stands (`vector_assets.at.<pipeline>`) and which
batch it applied (`vector_assets.batch`), so rows and position become visible by one file. Snapshots of others carry
nothing: the newest of ours counts. Expired snapshots are gone: the tag `vector_assets` keeps a copy of our newest one.
"""

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from vector_assets.clients.paimon import Storage, properties_of, translated
from vector_assets.engine.abilities import Recalled, RecalledBatch
from vector_assets.engine.core import BatchToken, Counts, Found, Receipt, Span, Token, canonical
from vector_assets.engine.errors import ExpiredError, FencedError
from vector_assets.sinks.contiguity import differences, told

if TYPE_CHECKING:
    from pypaimon.snapshot.snapshot import Snapshot
    from pypaimon.table.file_store_table import FileStoreTable

PREFIX = "vector_assets."
_AT = f"{PREFIX}at."
_BATCH = f"{PREFIX}batch"
_TABLE = f"{PREFIX}marked"
"""Set in every snapshot of ours, also where no pipeline stands anywhere any more."""
TAG = "vector_assets"
_SNAPSHOT_FILE = re.compile(r"snapshot-([0-9]+)$")


@dataclass(frozen=True, slots=True)
class Applied:
    """What a snapshot says of the batch that made it."""

    pipeline: str
    seq: int
    token: str
    fence: int
    span: Span
    counts: Counts
    at_ms: int
    snapshot: int = 0

    def to_json(self) -> str:
        """JSON, read back by `of_json`; the snapshot's number is not in it."""
        return canonical(
            {
                "pipeline": self.pipeline, "seq": self.seq, "token": self.token, "fence": self.fence,
                "span": self.span.to_json(), "at_ms": self.at_ms,
                "counts": _few(self.counts),
            }
        )  # fmt: skip

    @classmethod
    def of_json(cls, text: str, snapshot: int) -> "Applied":
        """The batch that `to_json` wrote into snapshot number `snapshot`."""
        found = orjson.loads(text)
        return cls(
            found["pipeline"], found["seq"], found["token"], found["fence"], Span.from_json(found["span"]),
            Counts.from_dict(found["counts"]), found["at_ms"], snapshot,
        )  # fmt: skip

    @property
    def receipt(self) -> Receipt:
        """What the commit returned."""
        return Receipt(self.token, str(self.snapshot), self.counts)


def _few(counts: Counts) -> dict[str, int]:
    """The counts that are not 0."""
    return {name: count for name, count in counts.to_dict().items() if count}


@dataclass(frozen=True, slots=True)
class Head:
    """Where the table stands with a pipeline: its newest batch and the next token of every split.

    `counts` and `snapshot` are what a receipt needs when that snapshot is expired, `since` is the first batch the table
    holds; snapshots of earlier versions tell none of them.
    """

    seq: int
    token: str
    fence: int
    positions: Mapping[str, Token]
    counts: Mapping[str, int] | None = None
    snapshot: int = 0
    since: int | None = None

    @property
    def receipt(self) -> Receipt | None:
        """What the commit of the newest batch returned."""
        return None if self.counts is None else Receipt(self.token, str(self.snapshot), Counts.from_dict(self.counts))


@dataclass(frozen=True, slots=True)
class Marks:
    """What the table's snapshots say. `is_complete` is false when snapshots are gone that may have been ours."""

    latest: "Snapshot | None"
    properties: Mapping[str, str] = field(default_factory=dict)
    is_complete: bool = True

    def head(self, pipeline: str) -> Head | None:
        """Where the table stands with a pipeline; None when it never saw it."""
        text = self.properties.get(_AT + pipeline)
        return Head(**orjson.loads(text)) if text else None

    def kept(self) -> dict[str, str]:
        """The properties that the next snapshot carries on: where every pipeline stands."""
        return {name: text for name, text in self.properties.items() if name.startswith(_AT)} | {_TABLE: "1"}

    def after(self, token: BatchToken, counts: Counts) -> dict[str, str]:
        """The properties of the snapshot that applies a batch."""
        head = self.head(token.pipeline)
        positions = dict(head.positions) if head else {}
        positions |= token.span.end
        at = {
            "seq": token.seq, "token": token.id, "fence": token.fence, "positions": positions,
            "counts": _few(counts), "snapshot": self.latest.id + 1 if self.latest is not None else 1,
            "since": head.since if head is not None else token.seq,
        }  # fmt: skip
        batch = Applied(token.pipeline, token.seq, token.id, token.fence, token.span, counts, int(time.time() * 1000))
        return {**self.kept(), _AT + token.pipeline: canonical(at), _BATCH: batch.to_json()}

    def without(self, pipeline: str) -> dict[str, str]:
        """The properties of a snapshot that forgets a pipeline."""
        return {name: text for name, text in self.kept().items() if name != _AT + pipeline}


class Tokens:
    """The tokens of one table. Snapshots never change, so what was read once is kept."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self._seen: dict[int, Mapping[str, str]] = {}

    def marks(self, table: "FileStoreTable") -> Marks:
        """What the table says now."""
        with translated(self.storage.place):
            manager = table.snapshot_manager()
            latest = manager.get_latest_snapshot()
            if latest is None:
                return Marks(None)
            found = properties_of(latest)
            number = latest.id
            while _TABLE not in found:
                number -= 1
                older = self._properties(table, number)
                if older is None:
                    return self._tagged(table, latest, earliest=number + 1)
                found = older
            return Marks(latest, found)

    def _tagged(self, table: "FileStoreTable", latest: "Snapshot", *, earliest: int) -> Marks:
        """No snapshot that is left is ours: what the tag keeps, which is complete if none is missing in between."""
        tag = table.tag_manager().get(TAG)
        if tag is None:
            return Marks(latest, {}, is_complete=earliest == 1)
        found = properties_of(tag)
        return Marks(latest, found if _TABLE in found else {}, is_complete=tag.id + 1 >= earliest)

    def _properties(self, table: "FileStoreTable", number: int) -> Mapping[str, str] | None:
        """Properties of a snapshot, None when it is not there (any more)."""
        if number < 1:
            return None
        if number not in self._seen:
            snapshot = table.snapshot_manager().get_snapshot_by_id(number)
            if snapshot is None:
                return None
            self._seen[number] = properties_of(snapshot)
        return self._seen[number]

    def batches(self, table: "FileStoreTable", pipeline: str) -> Iterator[Applied]:
        """The batches of a pipeline whose snapshots are left, newest first."""
        with translated(self.storage.place):
            numbers = self.numbers(table)
            for number in reversed(numbers):
                text = (self._properties(table, number) or {}).get(_BATCH)
                if text and (batch := Applied.of_json(text, number)).pipeline == pipeline:
                    yield batch
            tag = table.tag_manager().get(TAG)
            if tag is not None and tag.id not in numbers and (text := properties_of(tag).get(_BATCH)):
                batch = Applied.of_json(text, tag.id)
                if batch.pipeline == pipeline:
                    yield batch

    def numbers(self, table: "FileStoreTable") -> list[int]:
        """Numbers of all snapshots that are left, in order."""
        folder = table.snapshot_manager().snapshot_dir
        if not table.file_io.exists(folder):
            return []
        found = (_SNAPSHOT_FILE.search(info.path) for info in table.file_io.list_status(folder))
        return sorted(int(match[1]) for match in found if match)

    def batch(self, table: "FileStoreTable", pipeline: str, seq: int) -> Applied | None:
        """A batch by its number, None when no snapshot that is left tells of it."""
        for batch in self.batches(table, pipeline):
            if batch.seq == seq:
                return batch
            if batch.seq < seq:
                return None
        return None

    def remember(self, table: "FileStoreTable", number: int) -> None:
        """Let the tag keep snapshot `number`, so that its properties outlive it."""
        from pypaimon.common.json_util import JSON

        with translated(self.storage.place):
            snapshot = table.snapshot_manager().get_snapshot_by_id(number)
            if snapshot is not None:
                # pypaimon writes a tag in place, where others would see half of it
                self.storage.replace_file(table.tag_manager().tag_path(TAG), JSON.to_json(snapshot))

    def find(self, table: "FileStoreTable", token: BatchToken) -> Found:
        """Whether the table holds the batch; ABSENT only when it stands where the batch starts and nothing is lost.

        A batch between the first and the newest whose snapshot is expired was applied: positions move in sequence only.
        """
        marks = self.marks(table)
        head = marks.head(token.pipeline)
        if head is not None and head.seq >= token.seq:
            known = head.token if head.seq == token.seq else None
            if known is None:
                batch = self.batch(table, token.pipeline, token.seq)
                if batch is None and head.since is not None and head.since <= token.seq:
                    return "APPLIED"
                known = batch.token if batch else None
            return "APPLIED" if known == token.id else "UNKNOWN"
        return "ABSENT" if marks.is_complete and not _differences(head, token) else "UNKNOWN"

    def check(self, marks: Marks, token: BatchToken) -> None:
        """Refuse a batch that is not the next one.

        Raises:
            FencedError: it is not, or it cannot be known because snapshots were removed from outside.
        """
        place = f"{self.storage.place}: batch {token.seq} of pipeline {token.pipeline}"
        head = marks.head(token.pipeline)
        if head is not None and head.fence > token.fence:
            raise FencedError(f"{place}: the pipeline has a later owner (fence {head.fence}), ours is {token.fence}")
        if head is not None and head.seq >= token.seq:
            raise FencedError(
                f"{place} is not the next one: the table holds batch {head.seq}, token {head.token} by fence"
                f" {head.fence}; ours is {token.id}. If the ledger was restored from a copy, `vector-assets ledger"
                f" rebuild {token.pipeline}` brings it forward"
            )
        if lines := _differences(head, token):
            raise FencedError(f"{place} is not the next one: {told(lines)}")
        if not marks.is_complete:
            raise FencedError(
                f"{place}: snapshots that may hold it were removed by another program, and the tag {TAG!r} does not"
                " reach up to those that are left; nothing was written"
            )

    def receipt(self, table: "FileStoreTable", token: BatchToken) -> Receipt | None:
        """The receipt of a batch that the table holds under this very token and no later owner's.

        Raises:
            FencedError: a later owner applied it.
            ExpiredError: it is applied, but its snapshot is expired and its counts with it.
        """
        batch: Applied | Head | None = self.batch(table, token.pipeline, token.seq)
        if batch is None:
            head = self.marks(table).head(token.pipeline)
            if head is not None and head.seq > token.seq and self.find(table, token) == "APPLIED":
                raise ExpiredError(
                    f"{self.storage.place}: batch {token.seq} of pipeline {token.pipeline} is applied; its snapshot is"
                    " expired, and what it said of the batch with it"
                )
            batch = head if head is not None and head.seq == token.seq else None
        if batch is None or batch.token != token.id:
            return None
        if batch.fence > token.fence:
            raise FencedError(
                f"{self.storage.place}: batch {token.seq} of pipeline {token.pipeline} was applied by a later owner"
                f" (fence {batch.fence}), ours is {token.fence}"
            )
        return batch.receipt

    def recall(self, table: "FileStoreTable", pipeline: str, incarnation: str | None) -> Recalled:
        """Everything the tokens say of the pipeline: its position, and the batches whose snapshots are left."""
        head = self.marks(table).head(pipeline)
        if head is None:
            return Recalled({}, ())
        found = sorted({batch.seq: batch for batch in self.batches(table, pipeline)}.values(), key=lambda b: b.seq)
        batches = tuple(
            RecalledBatch(each.seq, each.token, each.span, each.counts, str(each.snapshot), each.at_ms)
            for each in found
        )
        if not batches or batches[-1].seq != head.seq:
            counts = Counts.from_dict(head.counts or {})
            batches = (*batches, RecalledBatch(head.seq, head.token, None, counts, "expired"))
        return Recalled(dict(head.positions), batches, head.fence, incarnation)


def _differences(head: Head | None, token: BatchToken) -> list[str]:
    """Where the batch does not start where the table stands, one line each."""
    return differences({} if head is None else head.positions, token, "table")


def is_ours(properties: Mapping[str, Any]) -> bool:
    """True for properties of a snapshot that we made."""
    return _TABLE in properties
