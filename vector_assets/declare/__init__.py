"""Text to Pipeline: one module per front end, one place that loads files and folders."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vector_assets.declare import flink_sql
from vector_assets.declare.cdc_job import Capture
from vector_assets.declare.cdc_look import known_pipelines
from vector_assets.declare.flink_options import Secrets
from vector_assets.declare.flink_sql import compile_script, shown_path
from vector_assets.declare.lake_form import DataSource, ResourceGroup, read
from vector_assets.declare.lake_job import compile_job
from vector_assets.declare.lake_shelf import CDC, Item, Shelf, shelve
from vector_assets.declare.yaml_text import Document, scalars
from vector_assets.engine import env
from vector_assets.engine.creation import refuse_shared_prefixes
from vector_assets.engine.errors import ConfigError, Place
from vector_assets.engine.pipeline import Pipeline

__all__ = [
    "Capture", "Declarations", "check_apart", "collect_folder", "compile_attributes", "compile_script", "load_captures",
    "load_file", "load_folder", "shelf_of", "shelf_of_folder", "shown_path",
]  # fmt: skip

log = logging.getLogger(__name__)

YAML = frozenset({".yaml", ".yml"})
"""Endings of files that hold lake jobs and what they use."""


@dataclass(frozen=True, slots=True)
class Declarations:
    """The pipelines of a folder, and one error for every file that has one; such a file gives no pipelines.

    `captures` are the CDC pipelines, of whose tables some pipelines are.
    """

    pipelines: tuple[Pipeline, ...]
    errors: tuple[ConfigError, ...] = ()
    captures: tuple[Capture, ...] = ()

    def checked(self) -> tuple[Pipeline, ...]:
        """The pipelines.

        Raises:
            ConfigError: there are errors; with several, the message lists them, one a line.
        """
        if len(self.errors) == 1:
            raise self.errors[0]
        if self.errors:
            listed = "\n".join(f"  {error}" for error in self.errors)
            raise ConfigError(f"{len(self.errors)} declarations are wrong:\n{listed}")
        return self.pipelines


def load_file(path: Path, *, secrets: Secrets = env.secret, offline: bool = False) -> list[Pipeline]:
    """The pipelines of one declaration; with `offline`, secrets that are not set get a stand-in.

    Raises:
        ConfigError: at the place that is wrong, or the kind of file is not supported.
    """
    if path.suffix == ".sql":
        return _script(path, secrets, offline=offline)
    if path.suffix in YAML:
        folder = env.pipelines_dir()
        around = folder if path.absolute().is_relative_to(folder) else path.absolute().parent
        files = [path, *(file for file in _files(around) if file.suffix in YAML and file.absolute() != path.absolute())]
        return _jobs(path, shelf_of(files), secrets, offline=offline)
    raise ConfigError("not a declaration; known endings: .sql, .yaml, .yml", Place(shown_path(path)))


def _script(path: Path, secrets: Secrets, *, offline: bool) -> list[Pipeline]:
    """The pipelines of a `*.sql` file: AutoETL's CALLs, or Flink SQL."""
    from vector_assets.declare.autoetl_script import is_autoetl

    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read: {error}", Place(shown_path(path))) from error
    if not is_autoetl(text):
        return flink_sql.compile_script(text, shown_path(path), secrets=secrets, offline=offline)
    from vector_assets.declare.autoetl import compile_autoetl

    return compile_autoetl(text, shown_path(path), secrets=secrets, offline=offline)


def shelf_of(files: Iterable[Path]) -> Shelf:
    """The YAML documents of files."""
    return shelve([(file, shown_path(file)) for file in files])


def shelf_of_folder(path: Path) -> Shelf:
    """The YAML documents of a folder and below."""
    return shelf_of(file for file in _files(path) if file.suffix in YAML) if path.is_dir() else Shelf(())


def folder_stamp(path: Path) -> tuple[tuple[str, int, int], ...]:
    """What changes whenever a YAML document of the folder does: its files with their times and sizes."""
    if not path.is_dir():
        return ()
    found = ((str(file), file.stat()) for file in _files(path) if file.suffix in YAML)
    return tuple((name, each.st_mtime_ns, each.st_size) for name, each in found)


def compile_attributes(file: Path, name: str) -> Pipeline:
    """The lake job of that name among the `attributes` of a `defs.yaml`, with what stands beside it.

    Raises:
        ConfigError: at the line that is wrong.
    """
    shown = shown_path(file)
    for whole in Document.all_of(file.read_text(encoding="utf-8-sig"), shown):
        if whole.value(("attributes", "job", "name")) != name:
            continue
        for path, text in scalars(whole.value(("attributes",)), ("attributes",)):
            if "{{" in text:
                raise whole.error("templates are not filled in here: write ${secret_values.<name>}", path)
        part = Document(whole.text, shown, whole.number, whole.entry(("attributes",)).value)
        items = [Item(kind, str(part.value((kind, "name")) or ""), part) for kind in part.names()]
        job = next(item for item in items if item.kind == "job")
        return compile_job(job, Shelf(tuple(items)))
    raise ConfigError("the component's job needs a name: write name:", Place(shown))


def _jobs(path: Path, shelf: Shelf, secrets: Secrets, *, offline: bool) -> list[Pipeline]:
    """The pipelines of a YAML file; data sources and groups that no job of the file uses are checked, too."""
    items = shelf.in_file(shown_path(path))
    for item in items:
        if item.kind == "datasource":
            read(DataSource, item.document, (item.kind,), item.owner)
        elif item.kind == "resource_group":
            read(ResourceGroup, item.document, (item.kind,), item.owner)
    jobs = [compile_job(item, shelf, secrets=secrets, offline=offline) for item in items if item.kind == "job"]
    found = [
        known_pipelines(capture, offline=offline) for capture in _captures_in(path, shelf, secrets, offline=offline)
    ]
    return [*jobs, *(pipeline for each in found for pipeline in each)]


def load_captures(path: Path, *, secrets: Secrets = env.secret, offline: bool = False) -> list[Capture]:
    """The CDC pipelines of a file.

    Raises:
        ConfigError: it is wrong.
    """
    return _captures_in(path, shelf_of([path]), secrets, offline=offline) if path.suffix in YAML else []


def _captures_in(path: Path, shelf: Shelf, secrets: Secrets, *, offline: bool) -> list[Capture]:
    items = [item for item in shelf.in_file(shown_path(path)) if item.kind == CDC]
    return [Capture(item.document, secrets=secrets, offline=offline) for item in items]


def collect_folder(path: Path, *, secrets: Secrets = env.secret, offline: bool = False) -> Declarations:
    """The pipelines of every declaration in a folder and below, in the order of the files' names.

    Files with other endings and names that begin with a dot or an underscore are passed over. Two pipelines of one name
    or one target are an error of the later file; links that MySQL clients asked for come last, and give way.
    """
    pipelines: list[Pipeline] = []
    captures: list[Capture] = []
    asked: list[Pipeline] = []
    errors: list[ConfigError] = []
    if not path.is_dir():
        return Declarations((), (ConfigError(f"no folder of declarations at {path}"),))
    shelf = shelf_of_folder(path)
    for file in _files(path):
        try:
            if file.suffix in YAML:
                mine = _captures_in(file, shelf, secrets, offline=offline)
                check_captures_apart(mine, captures)
                captures += mine
                found = _jobs(file, shelf, secrets, offline=offline)
            else:
                found = load_file(file, secrets=secrets, offline=offline)
            asked += [each for each in found if is_asked_for(each)]
            found = [each for each in found if not is_asked_for(each)]
            check_apart(found, pipelines)
        except ConfigError as error:
            errors.append(error)
        else:
            pipelines += found
    for each in asked:
        try:
            check_apart([each], pipelines)
        except ConfigError as error:
            log.warning("the link %s that a MySQL client asked for is left out: %s", each.name, error.message)
        else:
            pipelines.append(each)
    return Declarations(tuple(pipelines), tuple(errors), tuple(captures))


def check_captures_apart(found: Sequence[Capture], before: Sequence[Capture]) -> None:
    """Make sure that no two CDC pipelines have one name: the ledger keeps their tables by it.

    Raises:
        ConfigError: two do; the other's place is named.
    """
    for number, capture in enumerate(found):
        for other in (*before, *found[:number]):
            if other.name.lower() == capture.name.lower():
                raise ConfigError(f"CDC pipeline name {capture.name} is taken by {other.place}", capture.place)


def is_asked_for(pipeline: Pipeline) -> bool:
    """True of a link that a MySQL client asked for: no file is wrong because of it."""
    return pipeline.link is not None and pipeline.is_idle


def load_folder(path: Path, *, secrets: Secrets = env.secret, offline: bool = False) -> Declarations:
    """As `collect_folder`, and nothing is wrong.

    Raises:
        ConfigError: any file is wrong; the message names every one of them.
    """
    declarations = collect_folder(path, secrets=secrets, offline=offline)
    declarations.checked()
    return declarations


def _files(path: Path) -> Iterator[Path]:
    for file in sorted(path.rglob("*")):
        is_hidden = any(part.startswith((".", "_")) for part in file.relative_to(path).parts)
        if file.suffix in {".sql", ".yaml", ".yml"} and file.is_file() and not is_hidden:
            yield file


def check_apart(found: Sequence[Pipeline], before: Sequence[Pipeline]) -> None:
    """Make sure that pipelines share neither name nor target nor a prefix of their paths with others.

    Raises:
        ConfigError: one does; the other's place is named.
    """
    names = {pipeline.name.lower(): pipeline for pipeline in before}
    targets = {pipeline.claims["target"]: pipeline for pipeline in before if "target" in pipeline.claims}
    for pipeline in found:
        for what, shown, other in (
            ("pipeline name", pipeline.name, names.get(pipeline.name.lower())),
            ("target", pipeline.target, targets.get(pipeline.claims.get("target", ""))),
        ):
            if other is not None:
                raise ConfigError(f"{what} {shown} is taken by {other.place}", pipeline.place)
        refuse_shared_prefixes(pipeline, before)
