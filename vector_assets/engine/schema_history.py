"""Versions of a pipeline's columns in the ledger: which batch and which record caused which change."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from vector_assets.engine.core import Json, Split, canonical
from vector_assets.engine.lease import Lease
from vector_assets.engine.ledger import Ledger
from vector_assets.engine.store import Row


@dataclass(frozen=True, slots=True)
class Change:
    """A change of the columns, for people, and the record that wanted it first; `refused` says why the target did not
    make it (None: it did)."""

    what: str
    split: Split
    offset: int
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class SchemaVersion:
    """Columns that batches from `seq` on were made with.

    `columns` are names and types, `state` is what an evolving decoder needs to have them (empty: as declared).
    """

    version: int
    seq: int
    created_ms: int
    columns: tuple[tuple[str, str], ...]
    state: tuple[Json, ...]
    changes: tuple[Change, ...]


def history(ledger: Ledger, pipeline: str, target: str) -> list[SchemaVersion]:
    """Every version, oldest first."""
    rows = ledger.store.rows(
        "SELECT * FROM schema_versions WHERE pipeline = ? AND target = ? ORDER BY version", (pipeline, target)
    )
    return [_version(row) for row in rows]


def unsettled(ledger: Ledger, pipeline: str, target: str, columns: Sequence[tuple[str, str]]) -> frozenset[str]:
    """Those of the columns (names and types) that the newest batches did not have so; none before the first batch."""
    versions = history(ledger, pipeline, target)
    known = set(versions[-1].columns) if versions else set(columns)
    return frozenset(name for name, kind in columns if (name, kind) not in known)


def latest_state(ledger: Ledger, pipeline: str, target: str) -> tuple[Json, ...]:
    """What an evolving decoder needs to have the newest columns."""
    row = ledger.store.row(
        "SELECT state FROM schema_versions WHERE pipeline = ? AND target = ? ORDER BY version DESC LIMIT 1",
        (pipeline, target),
    )
    return tuple(orjson.loads(row["state"])) if row and row["state"] else ()


def state_of(ledger: Ledger, pipeline: str, target: str, version: int) -> tuple[Json, ...]:
    """What an evolving decoder needs to have the columns of a version; those as declared for one nobody knows."""
    row = ledger.store.row(
        "SELECT state FROM schema_versions WHERE pipeline = ? AND target = ? AND version = ?",
        (pipeline, target, version),
    )
    return tuple(orjson.loads(row["state"])) if row and row["state"] else ()


def add_version(
    ledger: Ledger, lease: Lease, columns: str, state: Sequence[Json], seq: int, changes: Sequence[Change]
) -> int:
    """A new version, from batch `seq` on; its number.

    Raises:
        FencedError: the lease is gone.
    """
    where = (lease.pipeline, lease.target)
    listed: list[Any] = [[change.what, change.split, change.offset, change.refused] for change in changes]
    with ledger.fenced(lease):
        row = ledger.store.row(
            "SELECT max(version) AS newest FROM schema_versions WHERE pipeline = ? AND target = ?", where
        )
        version = int((row["newest"] if row else None) or 0) + 1
        ledger.store.change(
            "INSERT INTO schema_versions (pipeline, target, version, columns, seq, created_ms, state, changes)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (*where, version, columns, seq, ledger.now_ms(), canonical(list(state)), canonical(listed)),
        )
    return version


def _version(row: Row) -> SchemaVersion:
    return SchemaVersion(
        row["version"],
        row["seq"],
        row["created_ms"],
        tuple((name, kind) for name, kind in orjson.loads(row["columns"])),
        tuple(orjson.loads(row["state"])) if row["state"] else (),
        tuple(Change(*values) for values in orjson.loads(row["changes"])) if row["changes"] else (),
    )
