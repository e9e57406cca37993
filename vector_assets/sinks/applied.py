"""What a target without transactions notes of the batches that it holds, and what follows from such notes."""

import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from vector_assets.engine.abilities import Recalled, RecalledBatch
from vector_assets.engine.core import (
    BatchToken,
    Counts,
    Found,
    Json,
    Position,
    Receipt,
    Span,
    canonical,
    no_rejects,
    rejects,
)
from vector_assets.engine.errors import FatalError, FencedError, TargetReplacedError
from vector_assets.sinks.contiguity import differences, told

KEPT_BATCHES = 10_000
"""Batches of a pipeline that are remembered; what is older cannot be replayed."""
PRUNE_EVERY = 100
"""After how many batches those that are too old are removed."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What the target says of a batch."""

    seq: int
    token: str
    fence: int
    incarnation: str
    span: Span
    counts: Counts
    rejected: tuple[tuple[int, str], ...] = ()
    at_ms: int | None = None
    """When it was noted, by the clock of the worker; batches of earlier versions have none."""

    def to_json(self) -> dict[str, Any]:
        """JSON, read back by `of_json`."""
        return {
            "seq": self.seq,
            "token": self.token,
            "fence": self.fence,
            "incarnation": self.incarnation,
            "span": self.span.to_json(),
            "counts": self.counts.to_dict(),
            "rejected": [list(pair) for pair in self.rejected],
            "at_ms": self.at_ms,
        }

    @classmethod
    def of_json(cls, found: Mapping[str, Any]) -> "Applied":
        """The batch that `to_json` wrote."""
        return cls(
            seq=found["seq"],
            token=found["token"],
            fence=found["fence"],
            incarnation=found["incarnation"],
            span=Span.from_json(found["span"]),
            counts=Counts.from_dict(found["counts"]),
            rejected=tuple((position, reason) for position, reason in found["rejected"]),
            at_ms=found.get("at_ms"),
        )

    @property
    def commit_id(self) -> str:
        """How the commit is called, for such a target numbers none that could be read back."""
        return f"{self.incarnation}:{self.seq}"


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a target stands with a pipeline; `incarnation` is what was written to last, `batch` the one asked for."""

    positions: Position
    incarnation: str | None
    last_seq: int
    batch: Applied | None


StandingT = TypeVar("StandingT", bound=Standing)


class AppliedTokens(ABC, Generic[StandingT]):
    """The notes of one pipeline in one target. `target` is the target's name inside its service.

    The head says where the target stands; a batch is applied once the head says so. Subclasses read and write.
    """

    connector: ClassVar[str]
    """How messages call the service."""
    noun: ClassVar[str]
    """What the service calls a target."""

    def __init__(self, target: str, pipeline: str) -> None:
        self.target = target
        self.pipeline = pipeline
        self.scope = hashlib.sha256(canonical([pipeline, target]).encode()).hexdigest()[:32]

    @abstractmethod
    def state(self, seq: int | None = None) -> StandingT:
        """Where the target stands, and what it says of batch `seq`."""

    @abstractmethod
    def finish(self, state: StandingT, token: BatchToken, batch: Applied) -> None:
        """Note that a batch is applied and move the positions; notes of old batches are removed now and then."""

    def check(self, state: StandingT, token: BatchToken, incarnation: str) -> None:
        """Refuse a batch that is not the next one, or whose target is another one of its name.

        Raises:
            FencedError: the positions are not where the batch starts.
            TargetReplacedError: the target is not the one the last batch was written to.
        """
        if state.incarnation is not None and state.incarnation != incarnation:
            raise TargetReplacedError(
                f"{self.target} is a new {self.noun} ({incarnation}) under the name of the one that pipeline"
                f" {self.pipeline} wrote to ({state.incarnation})"
            )
        if differences(state.positions, token):
            raise self._fenced(state, token)

    def check_same(self, found: str | None, wanted: str) -> None:
        """Refuse a target that is not the one that was prepared; none has the name when `found` is None.

        Raises:
            TargetReplacedError: it is not.
        """
        if found != wanted:
            now = "was dropped" if found is None else f"is a new {self.noun} ({found})"
            raise TargetReplacedError(
                f"{self.connector}: {self.target} {now}; pipeline {self.pipeline} was prepared for {wanted}"
            )

    def settle(
        self, state: StandingT, token: BatchToken, incarnation: str, counts: Counts, refused: Mapping[int, str]
    ) -> Receipt:
        """Note that a batch is applied, now, as `finish` does; its receipt."""
        now_ms = time.time_ns() // 1_000_000
        rejected = tuple(sorted(refused.items()))
        batch = Applied(token.seq, token.id, token.fence, incarnation, token.span, counts, rejected, now_ms)
        self.finish(state, token, batch)
        return self.receipt_of(batch, token)

    def _fenced(self, state: StandingT, token: BatchToken) -> FencedError:
        reasons = told(differences(state.positions, token))
        return FencedError(f"{self._of(token)} is not the next one: {reasons}")

    def _of(self, token: BatchToken) -> str:
        return f"{self.connector}: {self.target}: batch {token.seq} of pipeline {token.pipeline}"

    def find(self, token: BatchToken, incarnation: str | None) -> Found:
        """Whether the batch is applied; ABSENT only when the positions are where it starts.

        Raises:
            TargetReplacedError: the batch was applied to a target that is gone.
            FatalError: the batch is older than what the target remembers.
        """
        state = self.state(token.seq)
        batch = state.batch
        if batch is None:
            if state.last_seq - token.seq >= KEPT_BATCHES:
                raise FatalError(
                    f"{self._of(token)} is older than the {KEPT_BATCHES} batches that the target remembers: whether it"
                    " was applied cannot be told"
                )
            return "UNKNOWN" if differences(state.positions, token) else "ABSENT"
        if batch.token != token.id:
            return "UNKNOWN"
        if batch.incarnation != incarnation:
            now = "was dropped" if incarnation is None else f"is a new {self.noun} ({incarnation})"
            raise TargetReplacedError(
                f"{self.target} {now}; batch {token.seq} of pipeline {token.pipeline} was written to"
                f" {batch.incarnation}"
            )
        return "APPLIED"

    def receipt(self, token: BatchToken) -> Receipt:
        """What was noted when the batch was committed.

        Raises:
            FencedError: the batch is not there, or was applied by a later owner of the pipeline or under another token.
        """
        state = self.state(token.seq)
        if state.batch is None:
            raise self._fenced(state, token)
        return self.receipt_of(state.batch, token)

    def receipt_of(self, batch: Applied, token: BatchToken) -> Receipt:
        """The receipt of a batch that is there.

        Raises:
            FencedError: it was applied by a later owner of the pipeline or under another token.
        """
        if batch.token != token.id or batch.fence > token.fence:
            raise FencedError(
                f"{self._of(token)} is in the target already, token {batch.token} by fence {batch.fence}; ours is"
                f" {token.id} by fence {token.fence}"
            )
        refused = no_rejects()
        if batch.rejected:
            refused = rejects([at for at, _ in batch.rejected], "write", [reason for _, reason in batch.rejected])
        return Receipt(token.id, batch.commit_id, batch.counts, refused)

    def newest_seq(self) -> int:
        """Highest sequence number of the pipeline's batches, 0 for none."""
        return self.state().last_seq

    def _recalled(self, state: StandingT, batches: Iterable[Applied]) -> Recalled:
        """Everything that is noted of the pipeline."""
        in_order = sorted(batches, key=lambda batch: batch.seq)
        return Recalled(
            state.positions,
            tuple(RecalledBatch(b.seq, b.token, b.span, b.counts, b.commit_id, b.at_ms) for b in in_order),
            fence=max((batch.fence for batch in in_order), default=0),
            incarnation=state.incarnation,
        )

    def _head(self, state: StandingT, token: BatchToken, batch: Applied) -> dict[str, Json]:
        """What the head says once the batch is applied."""
        return {
            "positions": {**state.positions, **token.span.end},
            "incarnation": batch.incarnation,
            "seq": max(token.seq, state.last_seq),
        }

    def _id(self, name: object) -> str:
        return f"{self.scope}:{name}"


def oldest_kept(seq: int) -> int | None:
    """Up to which number batches are removed after batch `seq`; None where nothing is to be done."""
    return seq - KEPT_BATCHES if seq > KEPT_BATCHES and seq % PRUNE_EVERY == 0 else None
