"""Dead letters: rejected records with their raw bytes, place and reason; kept, listed, replayed, purged.

States: `hidden` (its batch is staged, not done), `open`, `replaying` (part of a dead-letter batch that is not done),
`replayed`, `purged` (the bytes are gone, the row stays for the books). A record that is rejected again by its replay
becomes a new open dead letter with the next attempt number and its origin unchanged. An operator's edits of a value are
kept beside it, numbered from 1; the newest one is what a replay decodes.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.engine.core import HEADERS_TYPE, POSITION, RAW_SCHEMA, Range, Span, Split
from vector_assets.engine.errors import FatalError
from vector_assets.engine.store import Row, Store
from vector_assets.engine.typed import from_bytes, to_bytes

_CHUNK = 500


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One rejected record. `seq` is the batch that rejected it, `origin_seq` the one that read it from the source."""

    id: int
    pipeline: str
    target: str
    seq: int
    ordinal: int
    split: str
    offset: int
    origin_seq: int
    attempt: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]] | None
    timestamp_ms: int | None
    stage: str
    error: str
    code_version: str
    state: str
    replayed_by: int | None
    created_ms: int
    edit: int = 0
    edited: bytes | None = None

    @property
    def current(self) -> bytes | None:
        """The value that a replay decodes: the newest edit, else what was read."""
        return self.edited if self.edit else self.value


class DeadLetters:
    """The dead letters of a ledger."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def add(
        self, batch: "BatchPlace", raw: pa.Table, span: Span, rejected: pa.Table, *, state: str, now_ms: int
    ) -> None:
        """Keep the records of `raw` that `rejected` names by ordinal; call it inside a transaction."""
        if rejected.num_rows == 0:
            return
        ordinals = rejected.column(POSITION)
        records = _as_bytes(raw.take(ordinals.combine_chunks()))
        parents = self._parents(batch, raw)
        values = []
        for record, reject in zip(records.to_pylist(), rejected.to_pylist(), strict=True):
            parent = parents[reject[POSITION]] if parents else None
            values.append(
                (
                    batch.pipeline, batch.target, batch.seq, reject[POSITION],
                    parent["split"] if parent else _split(span.ranges, record["split"]), record["offset"],
                    parent["origin_seq"] if parent else batch.root or batch.seq, parent["attempt"] + 1 if parent else 1,
                    record["key"], record["value"], _headers_text(record["headers"]),
                    int(record["timestamp"].timestamp() * 1000) if record["timestamp"] else None,
                    reject["stage"], reject["error"].replace("\0", "\\0"), batch.code_version, state, now_ms,
                )
            )  # fmt: skip
        self.store.change_many(
            'INSERT INTO dead_letters (pipeline, target, seq, ordinal, split, "offset", origin_seq, attempt, key,'
            " value, headers, timestamp_ms, stage, error, code_version, state, created_ms)"
            f" VALUES ({', '.join('?' * 17)})",
            values,
        )

    def _parents(self, batch: "BatchPlace", raw: pa.Table) -> list[Row] | None:
        """The dead letters a dead-letter batch replays, by ordinal; None for a batch of records."""
        rows = self.store.rows(
            "SELECT split, origin_seq, attempt FROM dead_letters WHERE pipeline = ? AND target = ? AND replayed_by = ?"
            " ORDER BY seq, ordinal",
            (batch.pipeline, batch.target, batch.root or batch.seq),
        )
        return rows if len(rows) == raw.num_rows and rows else None

    def drop_hidden(self, batch: "BatchPlace") -> None:
        """Forget what a staging stored that is done again."""
        self.store.change(
            "DELETE FROM dead_letters WHERE pipeline = ? AND target = ? AND seq = ? AND state = 'hidden'",
            (batch.pipeline, batch.target, batch.seq),
        )

    def reveal(self, batch: "BatchPlace") -> None:
        """The batch is done: its dead letters are open, those it replayed are replayed."""
        self.store.change(
            "UPDATE dead_letters SET state = 'open' WHERE pipeline = ? AND target = ? AND seq = ? AND state = 'hidden'",
            (batch.pipeline, batch.target, batch.seq),
        )
        self.store.change(
            "UPDATE dead_letters SET state = 'replayed'"
            " WHERE pipeline = ? AND target = ? AND replayed_by = ? AND state = 'replaying'",
            (batch.pipeline, batch.target, batch.seq),
        )

    def claim(self, pipeline: str, target: str, seq: int, ids: Sequence[int]) -> None:
        """Open dead letters become part of the dead-letter batch `seq`."""
        for start in range(0, len(ids), _CHUNK):
            part = ids[start : start + _CHUNK]
            self.store.change(
                "UPDATE dead_letters SET state = 'replaying', replayed_by = ? WHERE pipeline = ? AND target = ?"
                f" AND state = 'open' AND id IN ({', '.join('?' * len(part))})",
                (seq, pipeline, target, *part),
            )

    def unclaim(self, pipeline: str, target: str, seq: int) -> None:
        """The dead-letter batch `seq` was discarded: its letters are open again."""
        self.store.change(
            "UPDATE dead_letters SET state = 'open', replayed_by = NULL"
            " WHERE pipeline = ? AND target = ? AND replayed_by = ? AND state = 'replaying'",
            (pipeline, target, seq),
        )

    def claimed(self, pipeline: str, target: str, seq: int) -> list[DeadLetter]:
        """The dead letters of a dead-letter batch, in its order: by the batch that rejected them and their place there.

        Their ids are in another order where batches were staged side by side, and when a lost ledger was rebuilt.
        """
        return self._select(
            "pipeline = ? AND target = ? AND replayed_by = ? ORDER BY seq, ordinal",
            (pipeline, target, seq),
            with_bytes=True,
        )

    def open_with_bytes(self, pipeline: str, target: str) -> list[DeadLetter]:
        """Every open dead letter of a pipeline with its bytes, by id."""
        return self._select(
            "pipeline = ? AND target = ? AND state = 'open' ORDER BY id", (pipeline, target), with_bytes=True
        )

    def ordinals(self, pipeline: str, target: str, seqs: Sequence[int], *, stage: str | None = None) -> list[int]:
        """Ordinals of the records that these batches rejected (in one stage, or any), hidden letters left out."""
        found: set[int] = set()
        for seq in seqs:
            rows = self.store.rows(
                "SELECT ordinal FROM dead_letters WHERE pipeline = ? AND target = ? AND seq = ? AND state <> 'hidden'"
                + (" AND stage = ?" if stage else ""),
                (pipeline, target, seq, *([stage] if stage else [])),
            )
            found.update(row["ordinal"] for row in rows)
        return sorted(found)

    def first_ordinals(self, pipeline: str, target: str, origins: Sequence[int]) -> dict[tuple[int, str, int], int]:
        """By (origin batch, split, offset): the ordinal of each rejected record in the batch that read it."""
        found: dict[tuple[int, str, int], int] = {}
        for origin in origins:
            rows = self.store.rows(
                'SELECT split, "offset", ordinal FROM dead_letters WHERE pipeline = ? AND target = ?'
                " AND origin_seq = ? AND attempt = 1",
                (pipeline, target, origin),
            )
            found |= {(origin, row["split"], row["offset"]): row["ordinal"] for row in rows}
        return found

    def of_record(self, pipeline: str, target: str, origin: int, split: Split, offset: int) -> list[DeadLetter]:
        """The dead letters of one record, the first attempt first, without their bytes."""
        return self._select(
            "pipeline = ? AND target = ? AND origin_seq = ? AND split = ? AND \"offset\" = ? AND state <> 'hidden'"
            " ORDER BY id",
            (pipeline, target, origin, split, offset),
            with_bytes=False,
        )

    def edit(self, letter_id: int, value: bytes, *, now_ms: int) -> int:
        """Keep another value beside an open letter's own; the number of the edit.

        Raises:
            FatalError: the letter is not open (any more).
        """
        with self.store.transaction():
            letter = self.store.row("SELECT state FROM dead_letters WHERE id = ?", (letter_id,))
            if letter is None or letter["state"] != "open":
                found = letter["state"] if letter else "not there"
                raise FatalError(f"dead letter {letter_id} is {found}: only an open one can be edited")
            newest = self.store.row("SELECT max(edit) AS edit FROM dead_letter_edits WHERE letter_id = ?", (letter_id,))
            number = int(newest["edit"] or 0) + 1 if newest else 1
            self.store.change(
                "INSERT INTO dead_letter_edits (letter_id, edit, value, created_ms) VALUES (?, ?, ?, ?)",
                (letter_id, number, value, now_ms),
            )
        return number

    def _edited(self, letters: "list[DeadLetter]", *, with_bytes: bool) -> "list[DeadLetter]":
        """The letters with their newest edits."""
        newest: dict[int, tuple[int, bytes | None]] = {}
        ids = [letter.id for letter in letters]
        for start in range(0, len(ids), _CHUNK):
            part = ids[start : start + _CHUNK]
            rows = self.store.rows(
                f"SELECT letter_id, edit, {'value' if with_bytes else 'NULL AS value'} FROM dead_letter_edits"
                f" WHERE letter_id IN ({', '.join('?' * len(part))}) ORDER BY edit",
                part,
            )
            newest |= {int(row["letter_id"]): (int(row["edit"]), row["value"]) for row in rows}
        return [
            replace(letter, edit=newest[letter.id][0], edited=newest[letter.id][1]) if letter.id in newest else letter
            for letter in letters
        ]

    def get(self, letter_id: int) -> DeadLetter | None:
        """One dead letter with its bytes."""
        found = self._select("id = ?", (letter_id,), with_bytes=True)
        return found[0] if found else None

    def listed(
        self, pipeline: str | None = None, *, state: str | None = "open", limit: int | None = None, after: int = 0
    ) -> list[DeadLetter]:
        """Dead letters by id, without their bytes; hidden ones only when asked for."""
        where, values = ["id > ?"], [after]  # type: list[str], list[Any]
        if pipeline:
            where.append("pipeline = ?")
            values.append(pipeline)
        where.append("state = ?" if state else "state <> 'hidden'")
        values += [state] if state else []
        tail = " ORDER BY id" + (f" LIMIT {int(limit)}" if limit else "")
        return self._select(" AND ".join(where) + tail, values, with_bytes=False)

    def count(self, pipeline: str, *, state: str = "open") -> int:
        """How many dead letters of the pipeline are in `state`."""
        row = self.store.row(
            "SELECT count(*) AS letters FROM dead_letters WHERE pipeline = ? AND state = ?", (pipeline, state)
        )
        return int(row["letters"]) if row else 0

    def per_batch(self, pipeline: str, target: str) -> dict[int, int]:
        """How many dead letters each batch left, whatever became of them."""
        rows = self.store.rows(
            "SELECT seq, count(*) AS letters FROM dead_letters WHERE pipeline = ? AND target = ? AND state <> 'hidden'"
            " GROUP BY seq",
            (pipeline, target),
        )
        return {int(row["seq"]): int(row["letters"]) for row in rows}

    def reasons(self, pipeline: str, limit: int = 5) -> list[tuple[str, int]]:
        """Why letters are open, and how many for each reason; the newest reasons first."""
        rows = self.store.rows(
            "SELECT stage || ': ' || error AS reason, count(*) AS letters FROM dead_letters"
            " WHERE pipeline = ? AND state = 'open' GROUP BY stage, error ORDER BY max(id) DESC LIMIT ?",
            (pipeline, limit),
        )
        return [(row["reason"], int(row["letters"])) for row in rows]

    def purge(self, ids: Sequence[int]) -> int:
        """Delete the bytes of open or replayed dead letters; how many were purged."""
        with self.store.transaction():
            purged = [letter_id for letter_id in ids if self._purge(letter_id)]
            for letter_id in purged:
                self.store.change("DELETE FROM dead_letter_edits WHERE letter_id = ?", (letter_id,))
        return len(purged)

    def _purge(self, letter_id: int) -> int:
        return self.store.change(
            "UPDATE dead_letters SET state = 'purged', key = NULL, value = NULL, headers = NULL"
            " WHERE id = ? AND state IN ('open', 'replayed')",
            (letter_id,),
        )

    def _select(self, where: str, values: Sequence[Any], *, with_bytes: bool) -> list[DeadLetter]:
        blobs = "key, value, headers" if with_bytes else "NULL AS key, NULL AS value, NULL AS headers"
        rows = self.store.rows(
            f'SELECT id, pipeline, target, seq, ordinal, split, "offset", origin_seq, attempt, {blobs}, timestamp_ms,'
            f" stage, error, code_version, state, replayed_by, created_ms FROM dead_letters WHERE {where}",
            values,
        )
        letters = [DeadLetter(**{**dict(row), "headers": _headers(row["headers"])}) for row in rows]
        return self._edited(letters, with_bytes=with_bytes)


@dataclass(frozen=True, slots=True)
class BatchPlace:
    """The batch that rejects; `root` is the one its records were archived for (`BatchRecord.root`), if another."""

    pipeline: str
    target: str
    seq: int
    code_version: str
    root: int | None = None


def splits_of(letters: Sequence[DeadLetter]) -> list[Split]:
    """The letters' splits, each once: what the numbers in the column `split` of `raw_records` mean."""
    return list(dict.fromkeys(letter.split for letter in letters))


def raw_records(letters: Sequence[DeadLetter], schema: pa.Schema = RAW_SCHEMA) -> pa.Table:
    """The letters' raw records, in order; `schema` is the pipeline's (`Pipeline.raw_schema`).

    Raises:
        FatalError: rows of a typed source no longer fit the schema.
    """
    numbers = {split: number for number, split in enumerate(splits_of(letters))}
    values, kind = [letter.current for letter in letters], schema.field("value").type
    times = pa.array([letter.timestamp_ms for letter in letters], pa.int64())
    headers = [[{"key": k, "value": v} for k, v in x.headers] if x.headers else None for x in letters]
    current = from_bytes(values, kind) if pa.types.is_struct(kind) else pa.array(values, kind)
    # of captured tables the letters say what columns there are
    schema = schema.set(schema.get_field_index("value"), pa.field("value", current.type))
    return pa.table(
        [
            pa.array([letter.key for letter in letters], pa.binary()),
            current,
            pa.array(headers, HEADERS_TYPE),
            pc.cast(times, RAW_SCHEMA.field("timestamp").type),
            pa.array([numbers[letter.split] for letter in letters], pa.int16()),
            pa.array([letter.offset for letter in letters], pa.int64()),
            # a dead letter does not keep them
            pa.nulls(len(letters), RAW_SCHEMA.field("leader_epoch").type),
            pa.nulls(len(letters), RAW_SCHEMA.field("timestamp_type").type),
        ],
        schema=schema,
    )


def _as_bytes(records: pa.Table) -> pa.Table:
    """The records with values of typed sources as bytes."""
    values = records.column("value")
    if not pa.types.is_struct(values.type):
        return records
    return records.set_column(records.column_names.index("value"), "value", pa.array(to_bytes(values), pa.binary()))


def _split(ranges: Sequence[Range], index: int) -> str:
    return ranges[index].split


def _headers_text(headers: list[dict[str, Any]] | None) -> str | None:
    if headers is None:
        return None
    pairs = [[h["key"], base64.b64encode(h["value"]).decode() if h["value"] is not None else None] for h in headers]
    return orjson.dumps(pairs).decode()


def _headers(text: str | None) -> list[tuple[str, bytes | None]] | None:
    if text is None:
        return None
    return [(key, base64.b64decode(value) if value is not None else None) for key, value in orjson.loads(text)]
