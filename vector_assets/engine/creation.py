"""What is fixed for ever when a pipeline is created, and the folders that pipelines keep for themselves.

The ledger keeps it as the operators' event `created` of the pipeline, until an event `deleted` follows.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import orjson

from vector_assets.engine.core import canonical
from vector_assets.engine.errors import ConfigError

if TYPE_CHECKING:
    from vector_assets.engine.ledger import Ledger
    from vector_assets.engine.pipeline import Pipeline

CREATED = "created"
DELETED = "deleted"
_SAME_SCHEMES = {"": "file", "s3a": "s3", "s3n": "s3"}


@dataclass(frozen=True, slots=True)
class Creation:
    """`fixed` are names and values that may never change; `path` is the place that was declared (None where a catalog
    chooses it) and `folder` that of the table itself. `check` is asked once, before the pipeline is created.
    """

    fixed: Mapping[str, str]
    path: str | None = None
    folder: str | None = None
    check: Callable[[], None] = field(default=lambda: None, compare=False)


def segments(path: str) -> tuple[str, ...]:
    """A place as its scheme, its bucket and the names on the way to it; of a folder on disk those it really has."""
    parts = urlsplit(path)
    scheme = _SAME_SCHEMES.get(parts.scheme, parts.scheme)
    is_on_disk = scheme == "file"
    names = (_real_path(parts.path) if is_on_disk else parts.path).split("/")
    return (scheme, "" if is_on_disk else parts.netloc, *(name for name in names if name not in {"", "."}))


@lru_cache(maxsize=10_000)
def _real_path(path: str) -> str:
    return os.path.realpath(path)


def overlap(one: str, other: str) -> bool:
    """True when one place is the other or lies in it; `/test` and `/test2` are apart."""
    first, second = sorted((segments(one), segments(other)), key=len)
    return second[: len(first)] == first


def share_a_prefix(one: Creation, other: Creation) -> bool:
    """True when what one writes may come to lie among what the other wrote.

    Of two that were given one and the same place only the folders of their tables count.
    """
    if one.folder and other.folder and overlap(one.folder, other.folder):
        return True
    if not one.path or not other.path or segments(one.path) == segments(other.path):
        return False
    return overlap(one.path, other.path)


def refuse_shared_prefixes(pipeline: "Pipeline", others: "Iterable[Pipeline]") -> None:
    """Make sure that the pipeline's place is apart from those of others.

    Raises:
        ConfigError: at the pipeline; both paths and the other's place are named.
    """
    mine = _place_of(pipeline)
    for other in others:
        theirs = _place_of(other)
        if mine and theirs and other.name != pipeline.name and share_a_prefix(mine, theirs):
            paths = [each.path or each.folder for each in (mine, theirs)]
            what = f"path {paths[0]} shares a prefix with {paths[1]} of {other.name} ({other.place})"
            raise ConfigError(f"{pipeline.name}: {what}: their data would overwrite each other", pipeline.place)


def _place_of(pipeline: "Pipeline") -> Creation | None:
    """Where a pipeline's data lies; of one that is not fixed at its creation, as its options say now."""
    if pipeline.creation is not None or pipeline.sink_options.folder is None:
        return pipeline.creation
    return Creation({}, folder=pipeline.sink_options.folder)


def created(ledger: "Ledger") -> dict[str, Mapping[str, Any]]:
    """What is fixed of every pipeline that was created and not deleted, by name."""
    rows = ledger.store.rows(
        "SELECT pipeline, what, detail FROM events WHERE what IN (?, ?) ORDER BY id", (CREATED, DELETED)
    )
    found: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        if row["what"] == DELETED:
            found.pop(row["pipeline"], None)
        else:
            found.setdefault(row["pipeline"], orjson.loads(row["detail"]))
    return found


def ensure_created(ledger: "Ledger", pipeline: "Pipeline") -> bool:
    """Note that the pipeline exists, once; True when this call did.

    Raises:
        ConfigError: what is fixed was changed since, its place is not free, or shares a prefix with another one's.
    """
    mine = pipeline.creation
    if mine is None:
        return False
    known = created(ledger)
    if pipeline.name in known:
        _refuse_changes(pipeline, mine, known[pipeline.name])
    else:
        _refuse_known_prefixes(pipeline, mine, known)
        mine.check()
    with ledger.store.transaction():
        # another job may have been created while this one's place was looked at
        known = created(ledger)
        _refuse_known_prefixes(pipeline, mine, known)
        if pipeline.name in known:
            return False
        _note(ledger, pipeline.name, mine)
    return True


def note_created(ledger: "Ledger", pipeline: "Pipeline") -> None:
    """Note that a pipeline exists whose target was found to hold its batches; what lies there already is its own."""
    if pipeline.creation is not None and pipeline.name not in created(ledger):
        _note(ledger, pipeline.name, pipeline.creation)


def _note(ledger: "Ledger", name: str, mine: Creation) -> None:
    ledger.record_event(name, CREATED, canonical({"fixed": dict(mine.fixed), "path": mine.path, "folder": mine.folder}))


def refuse_changes(ledger: "Ledger", pipeline: "Pipeline") -> None:
    """Make sure that nothing was changed that is fixed, of a pipeline that was created.

    Raises:
        ConfigError: something was; both values are named.
    """
    before = created(ledger).get(pipeline.name)
    if pipeline.creation is not None and before is not None:
        _refuse_changes(pipeline, pipeline.creation, before)


def delete(ledger: "Ledger", pipeline: str) -> None:
    """Note that the pipeline is no more: its name and its place are free."""
    ledger.record_event(pipeline, DELETED, "{}")


def _refuse_changes(pipeline: "Pipeline", mine: Creation, before: Mapping[str, Any]) -> None:
    for name, value in mine.fixed.items():
        old = before["fixed"].get(name, value)
        if old != value:
            raise ConfigError(
                f"{pipeline.name}: {name} cannot be changed after creation: it was created with {old}, found {value};"
                " put it back, or create another job",
                pipeline.place,
            )


def _refuse_known_prefixes(pipeline: "Pipeline", mine: Creation, known: Mapping[str, Mapping[str, Any]]) -> None:
    for name, each in known.items():
        theirs = Creation(each["fixed"], each["path"], each["folder"])
        if name != pipeline.name and share_a_prefix(mine, theirs):
            raise ConfigError(
                f"{pipeline.name}: path {mine.path} shares a prefix with {theirs.path} of {name}, which the ledger"
                " knows: their data would overwrite each other",
                pipeline.place,
            )
