"""Which tables a CDC pipeline has: what the ledger knows of them, and a look at the server for new ones."""

import difflib
import logging
from contextlib import closing
from dataclasses import dataclass, replace

from vector_assets.declare.cdc_job import Capture
from vector_assets.declare.cdc_names import TablePatterns
from vector_assets.engine import captures, env
from vector_assets.engine.captures import CapturedTable
from vector_assets.engine.errors import ConfigError, VectorAssetsError
from vector_assets.engine.ledger import Ledger
from vector_assets.engine.pipeline import Pipeline
from vector_assets.engine.store import is_there

log = logging.getLogger(__name__)

FIRST_LOOK_SECONDS = 3
"""How long a connection of the look may take that loading makes where nothing is known yet."""
_SHOWN = 8
"""Names of tables in a message."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a look found: tables that are new and read from now on, those that wait for a word, those that cannot be
    taken and why, and known ones that the server does not have any more."""

    new: tuple[CapturedTable, ...] = ()
    waiting: tuple[CapturedTable, ...] = ()
    refused: tuple[tuple[str, str], ...] = ()
    gone: tuple[str, ...] = ()


def look(capture: Capture, ledger: Ledger, *, connect_seconds: int | None = None) -> Look:
    """Ask the server for its tables (and the sink for what decides their place); new ones are kept in the ledger.

    A table for a target that is being filled already waits: its rows so far are read when somebody says so.

    Raises:
        VectorAssetsError: the server or the sink does not answer, or refuses us.
    """
    known = captures.captured(ledger, capture.name)
    names = {table.name for table in known}
    there = capture.reading.discover(connect_seconds)
    fresh = [table for table in there if table.name not in names]
    facts = capture.sink.ask() if fresh else {}
    taken, waiting, refused = list(known), list[CapturedTable](), list[tuple[str, str]]()
    running = set(ledger.known())
    for found in fresh:
        table = replace(found, facts=facts)
        why = _waits(capture, table, taken, running)
        if why is not None:
            waiting.append(replace(table, waits=why))
        elif (reason := _refused(capture, table, taken)) is not None:
            refused.append((table.name, reason))
        else:
            taken.append(table)
    new = tuple(taken[len(known) :])
    captures.note(ledger, capture.name, (*new, *waiting))
    present = {table.name for table in there} if capture.reading.tells_all else names
    gone = tuple(sorted(name for name in names if name not in present and _is_wanted(capture, name)))
    return Look(new, tuple(waiting), tuple(refused), gone)


def nothing_found(capture: Capture) -> ConfigError:
    """What to say where no table is wanted of those that there are.

    Raises:
        VectorAssetsError: the server does not answer, or refuses us.
    """
    names, form = capture.reading.names(), capture.source
    excluded = [name for name in names if _matches(form.tables, name)]
    without = f" without {form.exclude!r} (tables.exclude)" if form.exclude else ""
    what = f"CDC pipeline {capture.name}: {capture.reading.where} has no table that matches {form.tables!r}{without}"
    if excluded:
        what += f"; excluded are {_some(excluded)}"
    elif names:
        wanted = form.tables.replace("\\", "").lower()
        near = difflib.get_close_matches(wanted, [name.lower() for name in names], n=_SHOWN, cutoff=0.4)
        close = [name for name in names if name.lower() in near]
        what += f"; near it: {_some(close)}" if close else f"; it has {_some(names)}"
    else:
        what += "; it has none at all that this user may see"
    return ConfigError(what, capture.document.place_of(("source", "tables")))


def _matches(patterns: str, name: str) -> bool:
    database, _, table = name.partition(".")
    return TablePatterns(patterns).matches(database, table)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{', '.join(names[:_SHOWN])}{more}"


def known_pipelines(capture: Capture, *, offline: bool = False) -> list[Pipeline]:
    """The pipelines of the tables that the ledger knows; where it knows none, one short look for them.

    A server that does not answer the look is said in the log: then there are no pipelines yet.

    Raises:
        ConfigError: the file is wrong, or the ledger cannot be asked.
    """
    try:
        tables = _of_ledger(capture)
        if not tables and not offline:
            tables = _first_look(capture)
    except ConfigError:
        raise
    except VectorAssetsError as error:
        raise ConfigError(f"CDC pipeline {capture.name}: its tables are not known: {error}", capture.place) from error
    return capture.pipelines(tables)


def _of_ledger(capture: Capture) -> list[CapturedTable]:
    if not is_there(env.ledger_location()):
        return []
    with closing(Ledger(env.ledger_location())) as ledger:
        return captures.captured(ledger, capture.name)


def _first_look(capture: Capture) -> list[CapturedTable]:
    with closing(Ledger(env.ledger_location())) as ledger:
        try:
            found = look(capture, ledger, connect_seconds=FIRST_LOOK_SECONDS)
        except VectorAssetsError as error:
            log.warning("%s: no table of it is known yet, and none can be looked up: %s", capture.name, error)
            return []
        for name, why in found.refused:
            log.warning("%s: table %s is not taken: %s", capture.name, name, why)
        return captures.captured(ledger, capture.name)


def _is_wanted(capture: Capture, name: str) -> bool:
    database, _, table = name.partition(".")
    return capture.source.wants(database, table)


def _waits(capture: Capture, table: CapturedTable, taken: list[CapturedTable], running: set[str]) -> str | None:
    """Why a table has to wait for a word: a pipeline that is past its first rows would never read those of it."""
    if not any(each.waits is None for each in taken):
        return None
    mine = set(capture.targets_of(table))
    for group in capture.groups(taken):
        name = capture.pipeline_name(group.target)
        if group.target in mine and name in running:
            return f"{group.target} is being filled by {name}, which has read all rows of its other tables"
    return None


def _refused(capture: Capture, table: CapturedTable, taken: list[CapturedTable]) -> str | None:
    if not table.columns:
        return f"none of its columns can be read ({', '.join(table.left_out) or 'it has none'})"
    try:
        reason = capture.refusal(capture.groups([*taken, table]))
        if reason is None:
            capture.pipelines([*taken, table], table)
    except ConfigError as error:
        return str(error)
    return reason
