"""How a read session's partitions are cut into splits: parts of (piece, first row, row count)."""

from collections.abc import Sequence
from dataclasses import dataclass

from vector_assets.local.maxcompute.refusal import invalid

Part = tuple[int, int, int]


@dataclass(frozen=True)
class Piece:
    """One partition of a session as it was when the session began."""

    values: list[str]
    version: int
    rows: int
    size: int


def by_size(pieces: Sequence[Piece], size: int, *, crosses: bool) -> list[list[Part]]:
    """Splits of about so many bytes; `crosses` lets one hold rows of several partitions."""
    if size <= 0:
        raise invalid(f"SplitNumber is {size}, it must be positive")
    total_rows = sum(piece.rows for piece in pieces)
    total_size = sum(piece.size for piece in pieces)
    most = max(1, int(total_rows * size / total_size)) if total_size else max(1, total_rows)
    return _cut(pieces, most, crosses=crosses)


def by_count(pieces: Sequence[Piece], count: int, *, crosses: bool) -> list[list[Part]]:
    """So many splits of about the same number of rows; more when they must not cross partitions."""
    if count <= 0:
        raise invalid(f"SplitNumber is {count}, it must be positive")
    total = sum(piece.rows for piece in pieces)
    return _cut(pieces, max(1, -(-total // count)), crosses=crosses)


def by_offset(pieces: Sequence[Piece], first: int, count: int) -> list[Part]:
    """The parts of the rows `first .. first + count` of all pieces in order.

    Raises:
        Refusal: there are not so many rows.
    """
    total = sum(piece.rows for piece in pieces)
    if first < 0 or count < 0 or first + count > total:
        raise invalid(f"rows {first} to {first + count} are asked for, the session has {total}")
    parts, at = [], 0
    for place, piece in enumerate(pieces):
        start, end = max(first, at), min(first + count, at + piece.rows)
        if start < end:
            parts.append((place, start - at, end - start))
        at += piece.rows
    return parts


def _cut(pieces: Sequence[Piece], most: int, *, crosses: bool) -> list[list[Part]]:
    splits: list[list[Part]] = []
    room = 0
    for place, piece in enumerate(pieces):
        if not crosses:
            room = 0
        at = 0
        while at < piece.rows:
            if room == 0:
                splits.append([])
                room = most
            count = min(room, piece.rows - at)
            splits[-1].append((place, at, count))
            at += count
            room -= count
    return splits
