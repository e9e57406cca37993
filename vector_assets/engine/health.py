"""How the engine's own things are (software, disks, ledger) and how one pipeline is: findings, nothing changed."""

import contextlib
import os
import platform
import shutil
import sqlite3
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from vector_assets import __version__
from vector_assets.engine import env
from vector_assets.engine.abilities import Checkable, Finding
from vector_assets.engine.archive import Archive
from vector_assets.engine.core import BatchLimit, Position, Source
from vector_assets.engine.errors import (
    ConfigError,
    PositionLostError,
    TransientError,
    UnavailableError,
    VectorAssetsError,
)
from vector_assets.engine.evolution import evolved
from vector_assets.engine.ledger import Ledger
from vector_assets.engine.pipeline import Pipeline
from vector_assets.engine.retry import RetryPolicy, call
from vector_assets.engine.schema_history import latest_state
from vector_assets.engine.store import is_there, is_url

_LIBRARIES = ("pyarrow", "duckdb", "sqlglot", "dagster", "confluent-kafka", "kafka-python", "psycopg", "pymilvus")
_LEAST_SQLITE = (3, 37)
"""The ledger's tables are STRICT."""
_LITTLE_BYTES, _SCARCE_BYTES = 5 << 30, 256 << 20
"""Free space that is worth a warning, and that is a problem: a batch and its archive may not fit."""
_UNREAD_SHARE = 0.8
_PATIENCE = RetryPolicy(retries=0, outage_seconds=2.0)
_BATCHES = 3


def software() -> Iterator[Finding]:
    """Versions of Python, this package and the libraries that matter."""
    yield Finding("ok", f"vector-assets {__version__}, Python {platform.python_version()} on {platform.machine()}")
    found = []
    for name in _LIBRARIES:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(f"{name} not installed")
    yield Finding("ok", ", ".join(found))
    if sqlite3.sqlite_version_info < _LEAST_SQLITE:
        yield Finding("problem", f"SQLite {sqlite3.sqlite_version} is too old for the ledger", "use 3.37 or later")


def disks() -> Iterator[Finding]:
    """Free space and the right to write where the engine writes."""
    folders = {"home": env.home(), "archive": env.archive_dir(), "DAGSTER_HOME": env.dagster_home()}
    with contextlib.suppress(ConfigError):  # said where the ledger is looked at
        if not is_url(env.ledger_location()):
            folders["ledger"] = Path(env.ledger_location()).absolute().parent
    for name, folder in folders.items():
        if folder is not None:
            yield _disk(name, folder)


def _disk(name: str, folder: Path) -> Finding:
    there = next(each for each in (folder, *folder.parents) if each.exists())
    where = f"{name} {folder}"
    if not os.access(there, os.W_OK):
        return Finding("problem", f"{where}: {there} may not be written", f"give this user the right to write {there}")
    free = shutil.disk_usage(there).free
    inodes = os.statvfs(there)
    if inodes.f_files and not inodes.f_favail:
        return Finding("problem", f"{where}: the file system has no inodes left", "remove files")
    text = f"{where}: {free / (1 << 30):.1f} GiB free"
    if free < _SCARCE_BYTES:
        return Finding("problem", text, "make room, or move it to another disk")
    if free < _LITTLE_BYTES:
        return Finding("warning", text, "make room before it is full")
    return Finding("ok", text)


def ledger() -> Iterator[Finding]:
    """The ledger: there, readable, whole."""
    try:
        location = env.ledger_location()
        is_made = is_there(location)
    except VectorAssetsError as error:
        yield Finding("problem", str(error), "mend VECTOR_ASSETS_LEDGER, or bring its server back")
        return
    if not is_made:
        where = "in PostgreSQL" if is_url(location) else location
        yield Finding("ok", f"ledger {where}: not there yet; the first run makes it")
        return
    if is_url(location):
        yield Finding("ok", "ledger in PostgreSQL: its server answers, its tables are there")
        return
    path = Path(location)
    try:
        with contextlib.closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)
        ) as connection:
            said = [str(row[0]) for row in connection.execute("PRAGMA quick_check(3)")]
    except sqlite3.Error as error:
        said = [str(error)]
    if said != ["ok"]:
        remedy = "stop every run, put back a copy of the ledger and its archive of one moment, then `status`"
        yield Finding("problem", f"ledger {path} is damaged: {'; '.join(said)}", remedy)
    else:
        yield Finding("ok", f"ledger {path}: whole, {path.stat().st_size / (1 << 20):.1f} MiB")


def pipeline(checked: Pipeline, books: Ledger | None) -> Iterator[Finding]:
    """Both ends of a pipeline, and what the ledger (None where there is none) knows of it."""
    if books is not None:
        # its target may have lost columns that are declared
        checked = evolved(checked, latest_state(books, checked.name, checked.target))
    yield from _source(checked, books)
    yield from _sink(checked, books)
    if books is not None and books.is_activated(checked.name, checked.target):
        yield from _books(checked, books)


def _source(checked: Pipeline, books: Ledger | None) -> Iterator[Finding]:
    source = checked.open_source()
    try:
        if isinstance(source, Checkable):
            yield from source.diagnose()
        position = None
        if books is not None and books.is_activated(checked.name, checked.target):
            position = books.position(checked.name, checked.target)
        yield from _backlog(checked, source, position)
    except VectorAssetsError as error:
        yield _unwell(error, "source")
    finally:
        source.close()


def _backlog(checked: Pipeline, source: Source, position: Position | None) -> Iterator[Finding]:
    """How far behind, and whether what is unread is about to be forgotten."""
    frontier = source.frontier()
    if position is None:
        unread = source.lag(source.start(), frontier)
        yield Finding("ok", f"the first run would read {unread:,} records")
        return
    try:
        source.plan(position, BatchLimit(1, 1))
    except PositionLostError as error:
        yield Finding(
            "problem", str(error), f"`vector-assets reset {checked.name} --to ...` once the loss is understood"
        )
        return
    lag = source.lag(position, frontier)
    most = checked.settings.check_max_lag
    what = f"{lag:,} records behind"
    if lag > most:
        yield Finding(
            "warning", f"{what} (vector-assets.check.max-lag is {most:,})", "start a run, or look at the last"
        )
    else:
        yield Finding("ok", what)
    earliest = source.locate("earliest")
    held = source.lag(earliest, frontier)
    if source.lag({}, earliest) > 0 and lag > _UNREAD_SHARE * held:
        what = (
            f"{lag:,} of the {held:,} records that the source still holds are unread, and it has forgotten older ones"
        )
        yield Finding("warning", what, "run now, or let the source keep records longer")


def _sink(checked: Pipeline, books: Ledger | None) -> Iterator[Finding]:
    sink = checked.open_sink()
    try:
        if isinstance(sink, Checkable):
            yield from sink.diagnose()
        target = call(
            _PATIENCE,
            lambda: sink.inspect(checked.schema, checked.sink_table.primary_key),
            place=f"{checked.name}: looking at {checked.target}",
        )
        key = f"key {', '.join(target.key)}" if target.key else "no key"
        yield Finding("ok", f"target {target.name} fits ({key}, {target.guarantee})")
        known = books.incarnation(checked.name, checked.target) if books is not None else None
        if known not in {None, target.incarnation}:
            what = f"TARGET_REPLACED: {target.name} is another object than the one the last batches went to"
            command = f"`vector-assets reset {checked.name} --adopt-target`, then `vector-assets replay {checked.name}`"
            yield Finding("problem", what, command)
    except VectorAssetsError as error:
        yield _unwell(error, "target")
    finally:
        sink.close()


def _unwell(error: VectorAssetsError, what: str) -> Finding:
    """What an error of one end means to somebody who looks."""
    if isinstance(error, UnavailableError | TransientError):
        return Finding(
            "problem", f"{what}: {error}", "start it (`vector-assets services up` for the local ones), or wait"
        )
    if isinstance(error, ConfigError):
        return Finding("problem", f"{what}: {error}", "mend the script's options or the credentials")
    return Finding("problem", f"{what}: {error}", f"mend the script or the {what}")


def _books(checked: Pipeline, books: Ledger) -> Iterator[Finding]:
    name, target = checked.name, checked.target
    holder = books.leases.holder(name, target)
    if holder is not None and books.leases.is_held(name, target):
        yield Finding("ok", f"lease held by {holder}")
    elif holder is not None:
        yield Finding("warning", f"lease left by {holder}, which is gone", "nothing to do: the next run takes it over")
    unfinished = books.unfinished(name, target)
    if unfinished and not books.leases.is_held(name, target):
        listed = ", ".join(f"{batch.seq} {batch.state}" for batch in unfinished)
        yield Finding("warning", f"unfinished batches: {listed}", f"`vector-assets run {name}` finishes them first")
    letters = books.dead_letters.count(name)
    if letters:
        level = f"`vector-assets dead-letters list {name}`"
        yield Finding("warning", f"{letters:,} open dead letters", level)
    for gap in books.gaps(name):
        yield Finding("warning", f"records lost: {gap.split} from {gap.start} to {gap.end} ({gap.kind})", None)
    archive = Archive(env.archive_dir())
    for batch in books.batches(name, target, limit=_BATCHES, newest_first=True):
        file = archive.root / batch.archive.path if batch.archive else None
        if file is not None and batch.archive and (not file.exists() or file.stat().st_size != batch.archive.bytes):
            what = f"batch {batch.seq}: {file} is missing or not as long as the ledger says"
            yield Finding("problem", what, "put it back from a backup: this batch cannot be replayed")
