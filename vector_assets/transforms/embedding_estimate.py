"""What embedding the records that wait would cost, without a call."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vector_assets.engine.core import Position, Split
from vector_assets.engine.decoding import decode
from vector_assets.engine.errors import ConfigError
from vector_assets.engine.pipeline import Pipeline
from vector_assets.engine.preview import pending
from vector_assets.transforms.embedding import EmbeddingTransform


@dataclass(frozen=True, slots=True)
class Estimate:
    """Of `records` that wait, `looked_at` were read: they have `texts` different texts, of which `known` are paid for.

    `to_send` texts of `bytes` are not; `requests`, `tokens` and `cost` are what sending them would take. `whole_cost`
    is the cost in proportion for all records that wait. `cost` is None without a price; `rejected` rows have no text
    that could be sent.
    """

    records: int
    looked_at: int
    texts: int
    known: int
    to_send: int
    bytes: int
    requests: int
    tokens: int
    cost: float | None
    whole_cost: float | None
    paid_today: float
    rejected: int

    def to_json(self) -> dict[str, Any]:
        """Every figure by name."""
        return asdict(self)


def estimate(pipeline: Pipeline, position: Position | None, *, records: int) -> Estimate:
    """Read up to `records` of the records behind `position` (or the start) and weigh their texts.

    Raises:
        ConfigError: the pipeline has no EMBED.
        PositionLostError: the source no longer holds the records.
        TransientError: the source does not answer.
    """
    *before, last = pipeline.transforms
    if not isinstance(last, EmbeddingTransform):
        raise ConfigError(f"pipeline {pipeline.name} has no EMBED: nothing to estimate", pipeline.place)
    upstream = replace(pipeline, transforms=tuple(before))
    pieces: list[pa.Table] = []
    looked_at = rejected = 0

    def take(raw: pa.Table, splits: tuple[Split, ...]) -> None:
        nonlocal looked_at, rejected
        sizing = last.sizing(decode(upstream, raw, splits).rows)
        looked_at += raw.num_rows
        rejected += sizing.rejected
        pieces.append(pa.table({"key": sizing.keys, "bytes": sizing.bytes, "known": sizing.known}))

    waiting = pending(pipeline, position, take, records=records)
    # a text that is in several pieces is sent once
    texts = pa.concat_tables(pieces).group_by(["key", "bytes", "known"]).aggregate([]) if pieces else None
    return _estimate(last, texts, max(waiting, looked_at), looked_at, rejected)


def _estimate(
    transform: EmbeddingTransform, texts: pa.Table | None, records: int, looked_at: int, rejected: int
) -> Estimate:
    model, options = transform.model, transform.model.options
    count = texts.num_rows if texts is not None else 0
    open_ = texts.filter(pc.invert(texts["known"])) if texts is not None else None
    to_send = open_.num_rows if open_ is not None else 0
    size = (pc.sum(open_["bytes"]).as_py() or 0) if open_ is not None else 0
    tokens = model.tokens_of(float(size))
    cost = options.cost(tokens) if options.price is not None else None
    return Estimate(
        records=records,
        looked_at=looked_at,
        texts=count,
        known=count - to_send,
        to_send=to_send,
        bytes=size,
        requests=max(-(-to_send // options.batch_size), -(-size // options.batch_bytes)),
        tokens=round(tokens),
        cost=cost,
        whole_cost=cost * records / looked_at if cost is not None and looked_at else cost,
        paid_today=model.paid_today(),
        rejected=rejected,
    )
