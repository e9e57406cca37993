"""Links that MySQL clients asked for: read from schema `dbms_etl`, and kept in the ledger as they were last seen."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vector_assets.engine import env, links
from vector_assets.engine.ledger import Ledger
from vector_assets.engine.store import is_there

NOTE = "autoetl_requests"
"""Under which the ledger keeps them."""
RUNNING, PAUSED, DROPPED = "RUNNING", "PAUSED", "DROPPED"


DRIVEN = "autoetl_driven"
"""Under which it keeps the arguments that a link was last run with."""


@dataclass(frozen=True, slots=True)
class Request:
    """A row of `dbms_etl.sync_links`: who asked for which link, when (UTC), and what is to become of it."""

    id: int
    name: str
    arguments: tuple[str, ...]
    state: str
    asked_by: str
    asked_at: str

    @property
    def is_dropped(self) -> bool:
        """True when there is to be no such link any more."""
        return self.state == DROPPED

    @property
    def is_paused(self) -> bool:
        """True while nothing is to be read."""
        return self.state == PAUSED


def link_name(index: str) -> str:
    """The name of a link that has no other: that of its index, as a name of a pipeline."""
    name = re.sub(r"\W", "_", index, flags=re.ASCII)
    return f"_{name}" if name[:1].isdigit() else name


def scope_of(file: str) -> str:
    """The name under which the requests of a script are kept."""
    return f"autoetl {Path(file).stem}"


def kept_requests(file: str) -> list[Request]:
    """The requests of a script as they were last seen; the newest of a name holds."""
    if not is_there(env.ledger_location()):
        return []
    ledger = Ledger(env.ledger_location())
    try:
        return noted_requests(ledger, file)
    finally:
        ledger.close()


def noted_requests(ledger: Ledger, file: str) -> list[Request]:
    """As `kept_requests`, of a ledger that is open."""
    found: Any = links.noted(ledger, scope_of(file), NOTE)
    return [Request(**{**each, "arguments": tuple(each["arguments"])}) for each in found or []]


def keep_requests(ledger: Ledger, file: str, found: Sequence[Request]) -> bool:
    """Keep what was seen; false when nothing changed. Pauses become those of the pipelines."""
    values: list[Any] = [{**asdict(each), "arguments": list(each.arguments)} for each in found]
    for each in found:
        links.pause(ledger, each.name, paused=each.is_paused)
    return links.note(ledger, scope_of(file), NOTE, values)
