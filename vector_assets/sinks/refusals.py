"""Rows of a batch that a sink will not send, found column by column."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]

Refuse = Callable[[Mask, str | Callable[[int], str]], None]
"""Told which rows are bad and why: one reason for all, or a reason per row number."""


@dataclass(slots=True)
class Refusals:
    """Rows of a batch that will not be sent, each with the first reason found."""

    reasons: dict[int, str] = field(default_factory=dict)

    def of(self, column: str) -> Refuse:
        """Takes the refusals of one column."""

        def refuse(rows: Mask, reason: str | Callable[[int], str]) -> None:
            for row in np.flatnonzero(rows).tolist():
                text = reason if isinstance(reason, str) else reason(row)
                self.reasons.setdefault(row, f"column {column}: {text}")

        return refuse
