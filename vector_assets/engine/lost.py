"""A lost ledger of a target that keeps nothing of batches: the archive shows it, and an operator says where to go on.

What the archive has and the ledger does not are batches of which nobody knows whether the last of them landed.
"""

import orjson

from vector_assets.engine.abilities import Recalled
from vector_assets.engine.core import Position, canonical
from vector_assets.engine.errors import ConfigError
from vector_assets.engine.evidence import archived_batches
from vector_assets.engine.rebuild import RebuildPlan
from vector_assets.engine.rebuild_write import put
from vector_assets.engine.session import Session, unheard


def start_at(session: Session, where: str, *, reason: str = "") -> Position:
    """Let a pipeline that knows nothing of itself go on at `where`; where that is, by split.

    Batches that the archive has and the ledger does not are kept there as given up, and their numbers are not used
    again. `where` is what the source understands, or positions by split as JSON.

    Raises:
        ConfigError: the pipeline knows where it stands, or `where` is not understood.
        LedgerLostError: the target knows where the pipeline stands.
    """
    pipeline, ledger = session.pipeline, session.ledger
    place = (pipeline.name, pipeline.target)
    ledger.register(*place, pipeline.source_options.start_option())
    lost = unheard(session)
    if not lost and ledger.is_activated(*place):
        raise ConfigError(
            f"{pipeline.name} knows where it stands: leave out --start-at; `vector-assets reset {pipeline.name} --to"
            " ...` moves it"
        )
    if lost and pipeline.aggregation is not None:
        raise ConfigError(
            f"{pipeline.name} adds records up by GROUP BY, and its groups were lost with the ledger: give the pipeline"
            " another name (SET 'pipeline.name') and an empty table"
        )
    wanted = _place(session, where)
    if not lost:
        with session.leased() as stages:
            ledger.freeze_start(stages.lease, wanted)
    else:
        with session.lease() as lease:
            archived = archived_batches(session.books.archive, pipeline)
            known = {batch.seq for batch in ledger.batches(*place)}
            plan = RebuildPlan(
                *place,
                Recalled(wanted, ()),
                abandoned=tuple(found[0] for seq, found in sorted(archived.items()) if seq not in known),
                given_up=tuple(batch.seq for batch in ledger.unfinished(*place)),
                start=wanted,
                position=wanted,
            )
            put(session, lease, plan)
    ledger.record_event(pipeline.name, "start-at", canonical({"to": where, "why": reason}))
    return wanted


def _place(session: Session, where: str) -> Position:
    if not where.lstrip().startswith("{"):
        return session.source.locate(where)
    try:
        found = orjson.loads(where)
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"--start-at: want positions by split as JSON: {error}") from error
    return dict(found)


__all__ = ["start_at"]
