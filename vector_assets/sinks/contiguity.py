"""Whether a batch is the next one in its target, and how to say that it is not: one rule for every sink."""

from collections.abc import Mapping

from vector_assets.engine.core import BatchToken, Position, Split, canonical

_SHOWN = 5
"""Splits that a message lists."""


def differences(positions: Position, token: BatchToken, what: str = "target") -> list[str]:
    """For each split where the target does not stand at the batch's start, what was found; empty for the next batch."""
    return differences_of_texts({split: canonical(place) for split, place in positions.items()}, token, what)


def differences_of_texts(positions: Mapping[Split, str], token: BatchToken, what: str = "target") -> list[str]:
    """As `differences`, of positions in canonical JSON, as a database keeps them."""
    lines = []
    for part in token.span.ranges:
        expected = None if part.split in token.first_splits else canonical(part.start)
        found = positions.get(part.split)
        if found != expected:
            start = f"starts at {expected}" if expected else "takes it as new"
            lines.append(f"split {part.split}: the batch {start}, the {what} stands at {found or 'no position'}")
    return lines


def told(lines: list[str], otherwise: str = "its positions moved meanwhile") -> str:
    """The first differences in one line; `otherwise` where there is none by now."""
    return "; ".join(lines[:_SHOWN]) or otherwise
