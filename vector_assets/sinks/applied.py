"""What a target without transactions notes of a batch that it holds, as JSON."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vector_assets.engine.core import Counts, Span


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
