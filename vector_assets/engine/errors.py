"""The error tree, grouped by what the engine does with each.

::

    VectorAssetsError
    +-- ConfigError         refused while loading; never retried
    +-- PlanError           source and target cannot be reconciled; a person must act
    +-- RecordError         one record is bad; dead-letter it and carry on
    +-- TransientError      run the same batch again, after `retry_after` seconds if set
    |   +-- UnavailableError    the service cannot be reached at all; waited for up to the outage timeout
    +-- RowsRefusedError    the target refuses rows; the batch is made again without them
    +-- FatalError          stop the pipeline; the ledger has not moved
        +-- PositionLostError   the source no longer holds the next position
        +-- FencedError         somebody else owns the pipeline now, or the target is ahead of us
        +-- TargetReplacedError the target is not the object the last batch was written to
        +-- BudgetError         more rejected records than the error budget allows
        +-- DamagedError        a file of the archive is gone, or not as it was written
        +-- ExpiredError        retention has removed what is asked for
        +-- LedgerLostError     the target holds batches that the ledger never heard of
        +-- StateLostError      the groups of a GROUP BY are missing, damaged or mean something else
        +-- DriftError          a document does not fit the table, and the pipeline is told to stop then

A connector catches its vendor's exceptions by name at its edge and raises one of these `from` them.
Messages name the pipeline or connector, the place, what was found and what was wanted; never a credential, never a row.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    # --help must not wait for it
    import pyarrow as pa

GapKind = Literal["TRUNCATED", "RECREATED", "DELETED", "BEYOND_END", "NEW_SPLIT", "MODIFIED"]
"""The named outcomes of a source that changed under us (ARCHITECTURE section 3)."""


class VectorAssetsError(Exception):
    """Anything this package raises on purpose."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a declaration something stands; lines and columns count from 1."""

    file: str
    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class ConfigError(VectorAssetsError):
    """A declaration or an option is wrong; `place` says where when a file is to blame."""

    def __init__(self, message: str, place: Place | None = None) -> None:
        super().__init__(f"{place}: {message}" if place else message)
        self.message = message
        self.place = place


class PlanError(VectorAssetsError):
    """Source and target cannot be reconciled; a person must act."""


class RecordError(VectorAssetsError):
    """One record is bad."""


class TransientError(VectorAssetsError):
    """The same batch may succeed later."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class UnavailableError(TransientError):
    """The service cannot be reached: refused, reset, starting up, name not resolved."""


class RowsRefusedError(VectorAssetsError):
    """The target refuses rows of a batch whose records hide earlier changes (`core.Staged.hides`): it has no token of
    the batch. `rejected` (core.REJECT_SCHEMA) names the rows.
    """

    def __init__(self, rejected: "pa.Table") -> None:
        super().__init__(f"the target refuses {rejected.num_rows} rows; the batch is made again without them")
        self.rejected = rejected


class FatalError(VectorAssetsError):
    """The pipeline must stop; no position has moved."""


class PositionLostError(FatalError):
    """The source no longer holds what comes next.

    `kind` is the named outcome; `missing` maps each split to the (from, to) range that cannot be read, `to` exclusive
    and None when unknown; `resume` holds the tokens (by split) from which the source can be read on beyond the loss.
    `policy` is set where the source's own options say what to do, instead of the pipeline's settings.
    """

    def __init__(
        self, message: str, kind: GapKind, missing: dict[str, tuple[int, int | None]] | None = None,
        resume: Mapping[str, Any] | None = None, policy: Literal["fail", "skip"] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(f"{kind}: {message}")
        self.kind = kind
        self.missing = missing or {}
        self.resume = resume or {}
        self.policy = policy


class FencedError(FatalError):
    """The target or the ledger refused a commit that is not the next one."""


class TargetReplacedError(FatalError):
    """TARGET_REPLACED: the target was dropped and made anew since the last batch."""

    def __init__(self, message: str) -> None:
        super().__init__(f"TARGET_REPLACED: {message}")


class BudgetError(FatalError):
    """The error budget of the pipeline is used up."""


class DamagedError(FatalError):
    """A file of the archive is missing, cannot be read, or is not byte for byte what the ledger knows."""


class ExpiredError(FatalError):
    """Retention has removed what is asked for: the records of a batch, or the batch itself."""


class LedgerLostError(FatalError):
    """The target holds batches that the ledger never heard of: it was lost, or restored from an older copy."""


class StateLostError(FatalError):
    """The groups of a GROUP BY are missing, damaged or mean something else than today's script says."""

    def __init__(self, pipeline: str, message: str) -> None:
        super().__init__(
            f"STATE_LOST: {pipeline}: {message}. Nothing was read or written; `vector-assets state rebuild {pipeline}`"
            " makes the groups again from the archive"
        )


class DriftError(FatalError):
    """A record does not fit the declared columns, and the drift mode is `fail`.

    `split` is the number that the raw column of that name has, `offset` the record's place there; `what` names the
    path, what was found and what was wanted.
    """

    def __init__(self, split: int, offset: int, what: str, remedy: str = "change the fields or the drift mode") -> None:
        super().__init__(f"record at offset {offset} of split {split}: {what}")
        self.remedy = remedy
        self.split = split
        self.offset = offset
        self.what = what
