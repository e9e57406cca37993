"""What the engine asks of a GROUP BY: records become parts of groups, which are merged into groups, which give changes.

`partial` is a function of one batch and runs in any worker; groups are merged batch after batch, in order. So what a
batch gives depends on its own records and on the groups as the batch before left them, on nothing else.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Changes:
    """What a batch did to the groups.

    `rows` are changes of the sink's rows, with `_kind` and `_position` (the last record of the group in the batch);
    `touched` are the groups that it made or changed, as they are now, in the columns of `Aggregation.columns`.
    """

    rows: pa.Table
    touched: pa.Table


class Groups(Protocol):
    """The groups after some batch. Not thread-safe."""

    def load(self, parts: Iterable[pa.Table]) -> None:
        """Forget everything and hold these groups; of a group that is in several parts, the last."""
        ...

    def merge(self, partial: pa.Table, *, before: bool) -> Changes:
        """Add a batch's part; without `before`, no `-U` is given for a row that stays.

        Raises:
            FatalError: a group has no row (a value does not fit its type); what the groups are then is not defined.
        """
        ...

    def add(self, partial: pa.Table) -> None:
        """Add a batch's part; what changes is not asked for.

        Raises:
            FatalError: as `merge`.
        """
        ...

    def whole(self) -> pa.Table:
        """Every group, in the columns of `Aggregation.columns`."""
        ...

    def rows(self) -> Iterator[pa.Table]:
        """The sink's row of every group that has one, with `_position`, in bounded pieces.

        Raises:
            FatalError: as `merge`.
        """
        ...

    def count(self) -> int:
        """How many groups there are."""
        ...

    def close(self) -> None:
        """Give the memory back; idempotent."""
        ...


class Aggregation(Protocol):
    """The GROUP BY of a pipeline. Thread-safe.

    `signature` says what a group holds: groups of another signature mean something else. `columns` are those a group is
    kept in. `keys` maps each group key to the columns of the sink that hold it as it is, and nothing else.
    """

    @property
    def signature(self) -> str:
        """Text; equal for groups that mean the same."""
        ...

    @property
    def columns(self) -> pa.Schema:
        """Columns of a group: its keys, then what is summed up."""
        ...

    @property
    def keys(self) -> Mapping[str, frozenset[str]]:
        """Group key, as the script says it, to the sink's columns that hold it."""
        ...

    def partial(self, rows: pa.Table) -> pa.Table:
        """The part that a batch's rows are of each group, with the `_position` of its last row."""
        ...

    def open(self, memory_bytes: int) -> Groups:
        """No groups yet; beyond so much memory they go to disk."""
        ...
