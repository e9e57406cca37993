"""What the ledger keeps of links beside their batches: notes by name, the newest of which holds, and pauses.

Kept as operators' events, so that machines which share a ledger agree on them.
"""

from typing import TYPE_CHECKING

import orjson

from vector_assets.engine.core import Json, canonical

if TYPE_CHECKING:
    from vector_assets.engine.ledger import Ledger

PAUSED = "paused"
RESUMED = "resumed"


def note(ledger: "Ledger", pipeline: str, what: str, value: Json) -> bool:
    """Keep a value under a name; false when it is what is kept already."""
    if noted(ledger, pipeline, what) == value:
        return False
    ledger.record_event(pipeline, what, canonical(value))
    return True


def noted(ledger: "Ledger", pipeline: str, what: str) -> Json:
    """The value that was kept last, None when none was."""
    row = ledger.store.row(
        "SELECT detail FROM events WHERE pipeline = ? AND what = ? ORDER BY id DESC LIMIT 1", (pipeline, what)
    )
    found: Json = orjson.loads(row["detail"]) if row is not None else None
    return found


def is_paused(ledger: "Ledger", pipeline: str) -> bool:
    """True while nothing is to start runs of the pipeline by itself."""
    row = ledger.store.row(
        "SELECT what FROM events WHERE pipeline = ? AND what IN (?, ?) ORDER BY id DESC LIMIT 1",
        (pipeline, PAUSED, RESUMED),
    )
    return row is not None and row["what"] == PAUSED


def pause(ledger: "Ledger", pipeline: str, *, paused: bool) -> bool:
    """Pause the pipeline or let it go on; false when it is so already."""
    if is_paused(ledger, pipeline) == paused:
        return False
    ledger.record_event(pipeline, PAUSED if paused else RESUMED, "{}")
    return True
