"""Where a record went and where a row came from, by ledger, sidecars and archive; the target is asked for rows only."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.engine import sidecar
from vector_assets.engine.abilities import Auditable, KeyReadable
from vector_assets.engine.core import POSITION, BatchKind, Json, Merge, Split, State, Token
from vector_assets.engine.dead_letters import DeadLetter
from vector_assets.engine.errors import ConfigError
from vector_assets.engine.expected import values_of
from vector_assets.engine.ledger_records import BatchRecord
from vector_assets.engine.origin import Origin, listed, origins
from vector_assets.engine.retention import expired_up_to
from vector_assets.engine.session import Session
from vector_assets.engine.stages import Stages
from vector_assets.engine.touches import ROW_BITS, made_again, place, read, remade

_ROW = (1 << ROW_BITS) - 1
_SHOWN = 50
"""Changes of one key that are shown, newest first."""


@dataclass(frozen=True, slots=True)
class Change:
    """A row of one key handed to the target: by which batch, by whose run and code, and from which record."""

    kind: str
    origin: Origin
    batch: int
    batch_kind: str
    run_id: str
    code_version: str
    done_ms: int | None
    is_owner: bool = False


@dataclass(frozen=True, slots=True)
class KeyStory:
    """A key: its row in the target now (None when there is none), and its changes, newest first.

    `is_read` is false where the sink cannot look rows up: whether the target has the row is not known. What batches up
    to `expired_up_to` did with it is not known any more; 0 for none.
    """

    key: dict[str, Json]
    row: dict[str, Json] | None
    changes: tuple[Change, ...]
    more: bool = False
    is_read: bool = True
    expired_up_to: int = 0


@dataclass(frozen=True, slots=True)
class RowStory:
    """A row that a record makes today, and its fate: `counted` (in the group of `key`), `written`, `deleted`, `altered`
    (in the target with other values), `absent`, `compacted`, `overwritten`, `conflict` or `superseded`; `by` is the
    change that it gave way to, None when its batch is expired. Where the sink cannot look rows up, `written` is what
    was handed to it."""

    fate: str
    key: dict[str, Json]
    row: dict[str, Json] | None = None
    by: Change | None = None


@dataclass(frozen=True, slots=True)
class RecordStory:
    """What became of the record at one offset, as one batch read it.

    `status`: `rows`, `filtered`, `rejected`, `hole` (the source has no record there), `gap`, `skipped` (by a reset),
    `before_start`, `expired` (retention keeps nothing of its batch), `unfinished` or `not_read`.
    """

    split: Split
    offset: int
    status: str
    detail: str
    batch: int | None = None
    hour: str | None = None
    run_id: str | None = None
    code_version: str | None = None
    timestamp_ms: int | None = None
    letters: tuple[tuple[int, str, str], ...] = ()
    rows: tuple[RowStory, ...] = ()


def offset_of(token: Token) -> int | None:
    """The offset in a token, None where the source's tokens have none."""
    value = token.get("offset") if isinstance(token, dict) else token
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def split_named(session: Session, name: str, topic: str | None = None) -> Split:
    """The one split that is meant by its number or its whole name.

    Raises:
        ConfigError: none or several; they are listed.
    """
    pipeline, target = session.pipeline.name, session.pipeline.target
    known = sorted(session.ledger.position(pipeline, target))
    found = [
        split
        for split in known
        if name in {split, split.rpartition("/")[2], split.partition("/")[2]}
        and topic in {None, split.partition("@")[0], split.rpartition("/")[0]}
    ]
    if len(found) != 1:
        said = "several splits (of which topic?)" if found else "no split"
        raise ConfigError(f"{pipeline}: {said} named {name!r}; splits: {', '.join(found or known) or 'none were read'}")
    return found[0]


def explain_offset(session: Session, split: Split, offset: int) -> list[RecordStory]:
    """What became of a record, once for every batch that read it (several after a reset).

    Raises:
        FatalError: an archive file or a sidecar is missing or damaged.
    """
    name, target = session.pipeline.name, session.pipeline.target
    batches = session.ledger.batches(name, target)
    with session.leased() as stages:
        pass
    containing = [batch for batch in batches if batch.state is not State.DISCARDED and _contains(batch, split, offset)]
    read_by = [batch for batch in containing if batch.kind is BatchKind.RECORDS]
    stories = [_read(session, stages, batch, split, offset, batches) for batch in read_by]
    return stories or [_never_read(session, split, offset, containing)]


def _contains(batch: BatchRecord, split: Split, offset: int) -> bool:
    for part in batch.span.ranges:
        start, end = offset_of(part.start), offset_of(part.end)
        if part.split == split and start is not None and end is not None and start <= offset < end:
            return True
    return False


def _never_read(session: Session, split: Split, offset: int, containing: Sequence[BatchRecord]) -> RecordStory:
    name, target = session.pipeline.name, session.pipeline.target
    for batch in containing:
        return RecordStory(split, offset, "skipped", f"batch {batch.seq} is a reset that moved over it", batch.seq)
    for gap in session.ledger.gaps(name):
        if gap.split == split and gap.start <= offset and (gap.end is None or offset < gap.end):
            return RecordStory(split, offset, "gap", f"the source lost it: {gap.kind}")
    position = offset_of(session.ledger.position(name, target).get(split))
    if position is not None and offset >= position:
        return RecordStory(split, offset, "not_read", f"the pipeline stands at {position}")
    fold = session.ledger.fold(name, target)
    start = offset_of((session.ledger.frozen_start(name, target) or {}).get(split))
    if fold and split in fold.ends and (start is None or offset >= start):
        return RecordStory(split, offset, "expired", f"retention folded the batches up to {fold.seq}")
    return RecordStory(split, offset, "before_start", "it lies before the place where the pipeline started")


def _read(
    session: Session, stages: Stages, batch: BatchRecord, split: Split, offset: int, batches: Sequence[BatchRecord]
) -> RecordStory:
    about: dict[str, Any] = {
        "batch": batch.seq, "hour": batch.hour, "run_id": batch.run_id, "code_version": batch.code_version,
    }  # fmt: skip
    if batch.expired_ms is not None:
        return RecordStory(split, offset, "expired", f"retention removed the records of batch {batch.seq}", **about)
    if batch.state is not State.DONE or batch.archive is None:
        return RecordStory(split, offset, "unfinished", f"batch {batch.seq} is {batch.state}", **about)
    ordinal = _ordinal(stages, batch, split, offset)
    if ordinal is None:
        detail = "the source has no record there (compacted away, of an aborted transaction, or a marker)"
        return RecordStory(split, offset, "hole", detail, **about)
    (origin,) = origins(stages, batch, [ordinal])
    about["timestamp_ms"] = origin.timestamp_ms
    letters = stages.ledger.dead_letters.of_record(batch.pipeline, batch.target, batch.seq, split, offset)
    about["letters"] = tuple((letter.id, letter.state, f"{letter.stage}: {letter.error}") for letter in letters)
    if letters and letters[-1].state != "replayed":
        detail = f"dead letter {letters[-1].id}, {letters[-1].state}: {letters[-1].stage}: {letters[-1].error}"
        return RecordStory(split, offset, "rejected", detail, **about)
    made = _made(stages, batch, ordinal, letters, batches)
    rows = tuple(_fates(session, stages, made, int(place(batch.seq, ordinal))))
    if rows:
        return RecordStory(split, offset, "rows", f"{len(rows)} rows", rows=rows, **about)
    return RecordStory(split, offset, "filtered", "today's code makes no row of it", **about)


def _made(
    stages: Stages, batch: BatchRecord, ordinal: int, letters: Sequence[DeadLetter], batches: Sequence[BatchRecord]
) -> pa.Table:
    """The rows that today's code makes of the record: as it was read, or as its dead letter landed."""
    landed = next((letter for letter in reversed(letters) if letter.replayed_by is not None), None)
    if landed is None:
        return made_again(stages, batch, np.array([ordinal], np.int64)).rows
    by = next(other for other in batches if other.seq == landed.replayed_by)
    claimed = [letter.id for letter in stages.ledger.dead_letters.claimed(by.pipeline, by.target, by.seq)]
    return made_again(stages, by, np.array([claimed.index(landed.id)], np.int64)).rows


def _ordinal(stages: Stages, batch: BatchRecord, split: Split, offset: int) -> int | None:
    if batch.archive is None:
        return None
    raw = stages.archive.read(batch.archive)
    number = [part.split for part in batch.span.ranges].index(split)
    found = pc.and_(pc.equal(raw.column("split"), number), pc.equal(raw.column("offset"), offset))
    at = np.flatnonzero(found.to_numpy())
    return int(at[0]) if len(at) else None


def _fates(session: Session, stages: Stages, made: pa.Table, here: int) -> Iterator[RowStory]:
    """What became of each row of one record."""
    key = stages.target.key
    for index in range(made.num_rows):
        row = made.slice(index, 1)
        if session.pipeline.aggregation is not None:
            texts = session.pipeline.aggregation.keys
            (values,) = listed(row.select(session.pipeline.aggregation.columns.names[: len(texts)])) or [{}]
            yield RowStory("counted", dict(zip(texts, values.values(), strict=True)))
            continue
        if not key:
            yield RowStory("written", {}, listed(row.select(session.pipeline.schema.names))[0])
            continue
        keys = row.select([*key, POSITION])
        (named,) = listed(row.select(list(key)))
        changes, places = _changes(stages, keys, session.sink.merge)
        current = _row_now(session, keys)
        yield _fate(session, row, named, here, changes, places, current)


def _fate(
    session: Session, row: pa.Table, key: dict[str, Json], here: int, changes: Sequence[Change],
    places: Sequence[int], current: pa.Table | None,
) -> RowStory:  # fmt: skip
    shown = listed(current)[0] if current is not None and current.num_rows else None
    owner = next((number for number, change in enumerate(changes) if change.is_owner), None)
    if owner is not None and places[owner] != here:
        by = changes[owner]
        if session.sink.merge is not Merge.LAST:
            fate = "conflict"
        else:
            is_same_batch = places[owner] >> ROW_BITS == here >> ROW_BITS
            given_up = "compacted" if is_same_batch else "superseded"
            fate = "overwritten" if here in places else given_up
        return RowStory(fate, key, shown, by)
    if owner is not None and changes[owner].kind == "delete":
        return RowStory("deleted", key, shown)
    if current is None:
        return RowStory("written", key)
    if shown is None:
        return RowStory("absent", key)
    is_equal = False
    if isinstance(session.sink, Auditable):
        stored = session.sink.as_stored(row)
        is_equal = listed(stored.select(values_of(stored))) == listed(current)
    differs = "conflict" if owner is None and session.sink.merge is not Merge.LAST else "altered"
    return RowStory("written" if is_equal else differs, key, shown)


def key_row(session: Session, key: Mapping[str, Any]) -> pa.Table:
    """A key given as JSON, in the pipeline's types, with `_position`.

    Raises:
        ConfigError: other columns than the key's, or a value that is not of the column's type.
    """
    wanted = session.target().key
    if not wanted:
        raise ConfigError(f"{session.pipeline.name}: {session.pipeline.target} has no key")
    if set(key) != set(wanted):
        raise ConfigError(
            f"{session.pipeline.name}: found key columns {', '.join(key) or 'none'}, wanted {', '.join(wanted)}"
        )
    columns = {}
    for name in wanted:
        kind = session.pipeline.schema.field(name).type
        try:
            columns[name] = pa.array([key[name]]).cast(kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError) as error:
            raise ConfigError(f"{session.pipeline.name}: key column {name}: wanted {kind}: {error}") from error
    return pa.table({**columns, POSITION: pa.array([0], pa.int64())})


def explain_key(session: Session, key: Mapping[str, Any]) -> KeyStory:
    """The key's row in the target and where it came from.

    Raises:
        ConfigError: as `key_row`.
        FatalError: an archive file or a sidecar is missing or damaged.
    """
    keys = key_row(session, key)
    with session.leased() as stages:
        pass
    changes, _ = _changes(stages, keys, session.sink.merge)
    current = _row_now(session, keys)
    row = listed(current)[0] if current is not None and current.num_rows else None
    (named,) = listed(keys.drop_columns(POSITION))
    expired = expired_up_to(stages.ledger, stages.pipeline.name, stages.pipeline.target)
    return KeyStory(
        named,
        row,
        tuple(changes[:_SHOWN]),
        more=len(changes) > _SHOWN,
        is_read=current is not None,
        expired_up_to=expired,
    )


def _row_now(session: Session, keys: pa.Table) -> pa.Table | None:
    return session.sink.rows_of(keys) if isinstance(session.sink, KeyReadable) else None


def _changes(stages: Stages, keys: pa.Table, merge: Merge) -> tuple[list[Change], list[int]]:
    """Every change of one key, newest batch first, and the places of their records; the owner's is marked."""
    key = stages.target.key
    (wanted,) = sidecar.key_hashes(keys, key).to_pylist()
    found: list[tuple[BatchRecord, int, int, bool]] = []
    for batch in stages.ledger.batches(stages.pipeline.name, stages.pipeline.target, newest_first=True):
        if batch.state is not State.DONE or batch.sidecar is None:
            continue
        touched = read(stages, batch, None)
        for at in np.flatnonzero(touched.hashes == np.uint64(wanted)).tolist():
            if _is_key(stages, batch, int(touched.files[at]) & _ROW, keys, wanted):
                found.append((batch, int(touched.places[at]), int(touched.files[at]), bool(touched.deleting[at])))
    owner = _owner(found, merge)
    if owner is not None and merge is not Merge.LAST and found[owner][0].counts.conflicts:
        # a batch that is expired may have written the key first
        expired = expired_up_to(stages.ledger, stages.pipeline.name, stages.pipeline.target)
        owner = None if expired else owner
    changes = []
    for number, (batch, _, file, deleting) in enumerate(found):
        (origin,) = origins(stages, stages.root(batch), [file & _ROW])
        kind = "delete" if deleting else "upsert"
        made_by = (batch.seq, str(batch.kind), batch.run_id, batch.code_version, batch.done_ms)
        changes.append(Change(kind, origin, *made_by, is_owner=number == owner))
    return changes, [where for _, where, _, _ in found]


def _owner(found: Sequence[tuple[BatchRecord, int, int, bool]], merge: Merge) -> int | None:
    """The change that the target's row is of: of the last place, or of the one written first; its newest version."""
    if not found:
        return None
    order = sorted(range(len(found)), key=lambda number: (found[number][1], found[number][0].seq))
    if merge is Merge.LAST:
        return order[-1]
    first = min(range(len(found)), key=lambda number: (found[number][2], found[number][0].seq))
    return next(number for number in reversed(order) if found[number][1] == found[first][1])


def _is_key(stages: Stages, batch: BatchRecord, ordinal: int, keys: pa.Table, wanted: int) -> bool:
    """False when the record makes another key of the same hash today; of groups only the hash is known."""
    if stages.pipeline.aggregation is not None:
        return True
    key = list(stages.target.key)
    made = remade(stages, stages.root(batch), np.array([ordinal], np.int64))
    same = made.filter(pc.equal(sidecar.key_hashes(made, tuple(key)), pa.scalar(wanted, pa.uint64()))).select(key)
    if same.num_rows == 0:
        return True
    return listed(keys.select(key))[0] in listed(same)
