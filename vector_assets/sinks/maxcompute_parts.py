"""What a batch does to each partition: the committable, a part at a time, and how each is sent."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.clients.maxcompute import MaxCompute, MaxTable
from vector_assets.clients.maxcompute_errors import NoPartitionError
from vector_assets.clients.maxcompute_hash import buckets_of, digest, split_by
from vector_assets.clients.maxcompute_records import changes, encode
from vector_assets.clients.maxcompute_write import WriteSession, arrow_body, place_of, put_block, put_changes
from vector_assets.engine.core import BatchToken, Json, canonical
from vector_assets.engine.errors import FatalError
from vector_assets.sinks.maxcompute_options import MaxComputeSinkOptions
from vector_assets.sinks.maxcompute_plan import Plan

State = tuple[int, int, int]
"""Of a partition: modified (epoch seconds), rows, bytes."""


@dataclass(frozen=True, slots=True)
class Part:
    """What of a batch goes to one partition: the session that holds it, and how the partition was before."""

    spec: str | None
    rows: int
    deleted: int
    digest: int
    session: str = ""
    blocks: int = 0
    before: State = (0, 0, 0)

    def to_json(self) -> Json:
        """For the committable."""
        return [self.spec, self.rows, self.deleted, self.digest, self.session, self.blocks, list(self.before)]

    @classmethod
    def from_json(cls, values: Any) -> "Part":
        """What `to_json` gave."""
        spec, rows, deleted, mark, session, blocks, (modified, known_rows, size) = values
        return cls(spec, rows, deleted, mark, session, blocks, (modified, known_rows, size))

    def is_like(self, other: "Part") -> bool:
        """True for the same rows in the same partition."""
        return (self.spec, self.rows, self.deleted, self.digest) == (
            other.spec, other.rows, other.deleted, other.digest,
        )  # fmt: skip


def parts_of(values: object) -> list[Part]:
    """The parts of a committable."""
    return [Part.from_json(each) for each in values] if isinstance(values, list) else []


@dataclass(frozen=True, slots=True)
class Load:
    """The rows of a part: upserts (or inserts) and deletes in the table's columns."""

    part: Part
    upserts: pa.Table
    deletes: pa.Table | None = None


@dataclass(slots=True)
class Payload:
    """A staged batch: its parts; `loads` and `sent` for the streaming tunnel, which sends in the commit."""

    parts: list[Part]
    loads: list[Load] = field(default_factory=list)
    sent: int = 0


def loads_of(plan: Plan, upserts: pa.Table, deletes: pa.Table | None, limit: int) -> list[Load]:
    """What goes where, partition by partition.

    Raises:
        FatalError: too many dynamic partitions.
    """
    found = dict(plan.by_partition(upserts, limit)) if upserts.num_rows else {}
    gone = dict(plan.by_partition(deletes, limit)) if deletes is not None and deletes.num_rows else {}
    specs = [*found, *(spec for spec in gone if spec not in found)]
    if len(specs) > limit and plan.dynamic:
        raise FatalError(
            f"{plan.place}: Too many dynamic partitions: the rows of a batch name {len(specs)}, dynamicPartitionLimit"
            f" is {limit}. Nothing was written"
        )
    empty = plan.table.schema.empty_table()
    return [_load(spec, found.get(spec, empty), gone.get(spec)) for spec in specs]


def _load(spec: str | None, upserts: pa.Table, deletes: pa.Table | None) -> Load:
    upserts = upserts.combine_chunks()
    mark = digest(upserts)
    if deletes is not None:
        mark ^= digest(deletes) << 1
    return Load(Part(spec, upserts.num_rows, deletes.num_rows if deletes is not None else 0, mark), upserts, deletes)


def state_of(service: MaxCompute, table: MaxTable, spec: str | None) -> State:
    """How a partition (or a table without any) is now."""
    if spec is None:
        now = service.table(table.handle.name)
        return now.modified, now.rows, now.bytes
    found = service.partition(table, spec)
    return found.modified, found.rows, found.bytes


def state_now(service: MaxCompute, table: MaxTable, spec: str | None) -> State | None:
    """As `state_of`; None where the partition is gone."""
    try:
        return state_of(service, table, spec)
    except NoPartitionError:
        return None


def slices(rows: pa.Table, most_bytes: int) -> Iterator[pa.Table]:
    """Rows in pieces of about so many bytes, by their average size."""
    if not rows.num_rows:
        return
    size = max(1, rows.num_rows * most_bytes // max(rows.nbytes, 1))
    for start in range(0, rows.num_rows, size):
        yield rows.slice(start, size)


def is_arrow(plan: Plan, options: MaxComputeSinkOptions) -> bool:
    """Whether inserts are sent as Arrow."""
    if options.tunnel != "batch":
        return False
    if options.arrow is not None:
        return options.arrow
    return not any(column.is_json for column in plan.table.columns)


def bodies(plan: Plan, options: MaxComputeSinkOptions, rows: pa.Table) -> Iterator[tuple[int, bytes]]:
    """Inserts in the tunnel's form, block by block, each with its number of rows."""
    for piece in slices(rows, options.block_bytes):
        if is_arrow(plan, options):
            body = arrow_body(piece.combine_chunks().to_batches(max_chunksize=options.arrow_rows))
        else:
            body = b"".join(encode(piece, plan.forms))
        yield piece.num_rows, body


def upload(service: MaxCompute, plan: Plan, options: MaxComputeSinkOptions, load: Load, session: WriteSession) -> Part:
    """Send the blocks of an upload session; the part with their number."""
    count = 0
    for _, body in bodies(plan, options, load.upserts):
        put_block(service, session, count, body, is_arrow=is_arrow(plan, options))
        count += 1
    return replace(load.part, session=session.id, blocks=count)


Change = tuple[int, str, tuple[int, ...], pa.Table]
"""Bucket, operation, places of the columns that are set (none for all), rows."""


def changes_of(plan: Plan, options: MaxComputeSinkOptions, load: Load, session: WriteSession) -> Iterator[Change]:
    """The changes of a part by bucket, in pieces that the writer's buffer holds.

    Raises:
        FatalError: the service has another number of buckets than the options say.
    """
    if len(session.slots) != options.bucket_num and not options.keeps_buckets:
        raise FatalError(
            f"{plan.place} has {len(session.slots)} buckets, upsert.write.bucket.num is {options.bucket_num}; nothing"
            " was written"
        )
    for operation, rows in (("U", load.upserts), ("D", load.deletes)):
        for piece in slices(rows, options.writer_buffer) if rows is not None else ():
            numbers = buckets_of(piece, plan.key, len(session.slots), session.hasher)
            for bucket, found in split_by(numbers, piece).items():
                if operation == "U" and options.partial:
                    yield from ((bucket, operation, places, part) for places, part in _by_nulls(plan, found))
                else:
                    yield bucket, operation, (), found


def _by_nulls(plan: Plan, rows: pa.Table) -> Iterator[tuple[tuple[int, ...], pa.Table]]:
    """Rows by which of the columns that are sent are not null: these are set."""
    sent = plan.sent
    flags = np.stack([np.asarray(pc.is_valid(rows.column(at)).combine_chunks()) for at in sent], axis=1)
    patterns, numbers = np.unique(flags, axis=0, return_inverse=True)
    for number, part in split_by(numbers.reshape(-1).astype(np.int64), rows).items():
        yield tuple(place for place, is_set in zip(sent, patterns[number].tolist(), strict=True) if is_set), part


def send_change(
    service: MaxCompute, plan: Plan, options: MaxComputeSinkOptions, session: WriteSession, change: Change, retries: int
) -> None:
    """Send changes of a bucket, by requests of the bucket's buffer."""
    bucket, operation, places, rows = change
    for piece in slices(rows, min(options.bucket_buffer, options.batch_size)):
        body = changes(piece, plan.forms, operation, places)
        put_changes(service, session, bucket, piece.num_rows, body, options.policy(retries))


def upsert(service: MaxCompute, plan: Plan, options: MaxComputeSinkOptions, load: Load, session: WriteSession) -> Part:
    """Send the changes of a part, so many buckets at a time."""

    def send(change: Change) -> None:
        send_change(service, plan, options, session, change, options.writer_retries)

    with ThreadPoolExecutor(options.flush_concurrent, thread_name_prefix="bucket") as pool:
        for _ in pool.map(send, changes_of(plan, options, load, session)):
            pass
    return replace(load.part, session=session.id)


def incarnation_of(table: MaxTable) -> str:
    """Changes when a table is dropped and made anew."""
    return canonical([str(getattr(table.handle, "table_id", None) or ""), str(table.handle.creation_time)])


def doubt_of(plan: Plan, token: BatchToken, part: Part, now: State | None) -> str:
    """What is said of a batch that may or may not be in a partition."""
    place = place_of(plan.table, part.spec)
    then = f"{part.before[1]} rows" if part.before[1] >= 0 else "other statistics"
    since = "gone" if now is None else f"{now[1]} rows" if now[1] >= 0 else "changed"
    return (
        f"{place}: batch {token.seq} ({token.span.short()}) may or may not be there: its session {part.session} has"
        f" expired, and the partition has changed since ({then} before, now {since}; the batch has {part.rows} rows and"
        f" {part.deleted} deletes for it). Nothing was written. Look at the partition; then"
        f" `vector-assets reset {token.pipeline} --to` the end of these ranges if the rows are there, or their start if"
        " they are not: the batch is given up, and reading goes on from that place"
    )
