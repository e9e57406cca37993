"""Pipelines by name or file, and the books; everything a command opens before it works."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vector_assets.declare import collect_folder, load_captures, load_file
from vector_assets.engine import env
from vector_assets.engine.env import ledger_location, pipelines_dir
from vector_assets.engine.errors import ConfigError
from vector_assets.engine.pipeline import Pipeline
from vector_assets.engine.registry import nearest
from vector_assets.engine.session import Books, Session
from vector_assets.engine.store import is_there


class UnknownPipelineError(ConfigError):
    """No declared pipeline has that name."""


def pipelines(name: str | None = None, *, offline: bool = False) -> list[Pipeline]:
    """Every declared pipeline, or the one of that name.

    Raises:
        ConfigError: any declaration is wrong, or none has that name; the nearest name is given.
    """
    declarations = collect_folder(pipelines_dir(), offline=offline)
    try:
        return named(declarations.checked(), name)
    except UnknownPipelineError as error:
        mine = [each for each in declarations.captures if name is not None and name.startswith(each.name)]
        if not mine:
            raise
        what = (
            f"{error}; tables of CDC pipeline {mine[0].name} are found by `vector-assets capture {mine[0].place.file}`"
        )
        raise ConfigError(what) from None


def sound(name: str | None = None, *, offline: bool = False) -> tuple[list[Pipeline], tuple[ConfigError, ...]]:
    """As `pipelines`, of the files that are right, and what is wrong with the others: enough to look, not to work.

    Raises:
        ConfigError: no right file declares that name.
    """
    declarations = collect_folder(pipelines_dir(), offline=offline)
    if name is not None and all(pipeline.name != name for pipeline in declarations.pipelines):
        declarations.checked()
    return named(declarations.pipelines, name), declarations.errors


def named(found: Sequence[Pipeline], name: str | None) -> list[Pipeline]:
    """Those of that name, or all.

    Raises:
        ConfigError: there is none.
    """
    chosen = [pipeline for pipeline in found if name in {None, pipeline.name}]
    if name is not None and not chosen:
        known = sorted(pipeline.name for pipeline in found)
        listed = ", ".join(known) or "none"
        raise UnknownPipelineError(
            f"unknown pipeline {name!r}{nearest(name, known)}; {pipelines_dir()} declares: {listed}"
        )
    return sorted(chosen, key=lambda pipeline: pipeline.name)


def from_file(file: Path, *, offline: bool = False) -> list[Pipeline]:
    """The pipelines of one file.

    Raises:
        ConfigError: the file is missing or wrong; the message names file, line and column; or it is a Flink CDC
            pipeline no table of which is known.
    """
    found = load_file(file, offline=offline)
    if not found and (captures := load_captures(file, offline=offline)):
        what = (
            f"no table of CDC pipeline {captures[0].name} is known yet: `vector-assets capture {file}` looks for them"
        )
        raise ConfigError(what, captures[0].place)
    return found


def has_ledger() -> bool:
    """True when there is a ledger to open; opening one that is not there would make it."""
    return is_there(ledger_location())


@contextmanager
def books() -> Iterator[Books]:
    """The ledger and the archive that the environment names."""
    opened_books = Books.open()
    try:
        yield opened_books
    finally:
        opened_books.close()


@contextmanager
def opened(name: str) -> Iterator[Session]:
    """A declared pipeline with its books, ready to work; connections open when they are needed."""
    (pipeline,) = pipelines(name)
    with books() as open_books, Session(pipeline, open_books) as session:
        yield session


def known_to_ledger(open_books: Books, name: str) -> None:
    """Make sure the ledger has heard of the pipeline, declared or not.

    Raises:
        ConfigError: it has not; the nearest name it knows is given.
    """
    known = open_books.ledger.known()
    if name not in known:
        listed = ", ".join(known) or "none"
        raise ConfigError(f"unknown pipeline {name!r}{nearest(name, known)}; the ledger knows: {listed}")


def with_secrets(text: str) -> str:
    """A value of the command line with every `${secret_values.x}` replaced.

    Raises:
        ConfigError: a secret is not set.
    """
    return re.sub(r"\$\{secret_values\.([\w.-]+)\}", lambda match: env.secret(match[1]), text)
