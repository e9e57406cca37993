"""YAML declarations of a folder read together: data sources, resource groups and jobs, each found by its name."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vector_assets.declare.lake_form import DataSource, LakeJob, ResourceGroup, name_of, read
from vector_assets.declare.yaml_text import Document
from vector_assets.engine.errors import ConfigError, Place
from vector_assets.engine.registry import nearest

KINDS = {"datasource": "a data source", "job": "a lake job", "resource_group": "units that jobs share"}
"""What a document may be, by its only key."""
CDC = "cdc"
"""The kind of a Flink CDC pipeline, whose document has several keys."""

_CDC_KEYS = frozenset({"source", "sink", "transform", "route", "pipeline"})


@dataclass(frozen=True, slots=True)
class Item:
    """One document by its kind and its name; the name is empty where none is written."""

    kind: str
    name: str
    document: Document

    @property
    def place(self) -> Place:
        """Where it begins."""
        return self.document.place

    @property
    def file(self) -> str:
        """The file it stands in."""
        return self.document.file

    @property
    def owner(self) -> str:
        """How messages name it."""
        return f"{self.kind} {self.name}".strip()


@dataclass(frozen=True, slots=True)
class Shelf:
    """Every document of some files; the first of a name is the one that the name means."""

    items: tuple[Item, ...]
    wrong: dict[str, ConfigError] = field(default_factory=dict)
    """What is wrong with files that cannot be read at all, by file."""

    def of(self, kind: str) -> list[Item]:
        """The documents of a kind, in order."""
        return [item for item in self.items if item.kind == kind]

    def in_file(self, file: str) -> list[Item]:
        """The documents of a file.

        Raises:
            ConfigError: it cannot be read, or one of its documents has a name that is taken.
        """
        if file in self.wrong:
            raise self.wrong[file]
        mine = [item for item in self.items if item.file == file]
        for item in mine:
            other = next(each for each in self.items if (each.kind, each.name) == (item.kind, item.name))
            if other is not item and item.name:
                raise ConfigError(f"{item.owner}: the name is taken by {other.place}", item.place)
        return mine

    def find(self, kind: str, name: str) -> Item:
        """The document of a kind and a name.

        Raises:
            ConfigError: there is none; the nearest name is given.
        """
        for item in self.of(kind):
            if item.name == name:
                return item
        known = [item.name for item in self.of(kind)]
        listed = ", ".join(known) or "none"
        raise ConfigError(f"unknown {kind} {name!r}{nearest(name, known)}; declared: {listed}")

    def source_of(self, job: Item) -> tuple[DataSource, Document, tuple[str | int, ...]]:
        """The data source that a job reads, and where its keys stand: in a document of its own, or in the job.

        Raises:
            ConfigError: there is none of that name, or it is wrong.
        """
        written = job.document.value(("job", "source"))
        if isinstance(written, dict):
            path: tuple[str | int, ...] = ("job", "source")
            return (
                read(DataSource, job.document, path, f"{job.owner}: source", implied={"name": job.name}),
                job.document,
                path,
            )
        if written is None:
            raise ConfigError(f"{job.owner}: key 'source' is required", job.document.place_of_key(("job",)))
        try:
            found = self.find("datasource", str(written))
        except ConfigError as error:
            raise job.document.error(f"{job.owner}: source: {error.message}", ("job", "source")) from None
        return read(DataSource, found.document, ("datasource",), found.owner), found.document, ("datasource",)

    def users_of(self, source: str) -> list[Item]:
        """The jobs that read a data source."""
        return [item for item in self.of("job") if item.document.value(("job", "source")) == source]

    def check_units(self, job: Item, form: LakeJob) -> None:
        """Make sure that the job's resource group has as many units left as the job wants.

        Jobs that stand before it have theirs already.

        Raises:
            ConfigError: it has not, or there is no such group.
        """
        name, wanted = form.limits.group, form.limits.units
        if name is None or wanted is None:
            return
        before = self.of("job")
        before = before[: before.index(job)] if job in before else before
        self.left(job, name, wanted, before)

    def left(self, job: Item, name: str, wanted: int, others: Iterable[Item]) -> int:
        """Units of a group that other jobs leave.

        Raises:
            ConfigError: the job wants more, or there is no such group.
        """
        where = ("job", "resources", "group")
        try:
            group = self.find("resource_group", name)
        except ConfigError as error:
            raise job.document.error(f"{job.owner}: resources: {error.message}", where) from None
        most = read(ResourceGroup, group.document, ("resource_group",), group.owner).max_units
        used = {item.name: _units(item) for item in others if _group(item) == name and item.name != job.name}
        left = most - sum(used.values())
        if wanted > left:
            taken = ", ".join(f"{each} {units}" for each, units in used.items()) or "none"
            what = f"resource group {name} has {most} units in all, {most - left} used ({taken})"
            raise job.document.error(
                f"{job.owner}: resources.units: found {wanted}; {what}: at most {max(left, 0)} are left",
                ("job", "resources", "units"),
            )
        return left


def _group(job: Item) -> object:
    return job.document.value(("job", "resources", "group"))


def _units(job: Item) -> int:
    written = str(job.document.value(("job", "resources", "units")) or "0")
    return int(written) if written.isdigit() else 0


def shelve(files: Sequence[tuple[Path, str]]) -> Shelf:
    """The documents of files, each given with the name that messages show."""
    items: list[Item] = []
    wrong: dict[str, ConfigError] = {}
    for path, shown in files:
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            wrong[shown] = ConfigError(f"cannot be read: {error}", Place(shown))
            continue
        try:
            items += items_of(text, shown)
        except ConfigError as error:
            wrong[shown] = error
    return Shelf(tuple(items), wrong)


def items_of(text: str, file: str) -> list[Item]:
    """The documents of one file.

    Raises:
        ConfigError: it is no YAML, or a document is of no kind that is known.
    """
    found = []
    for document in Document.all_of(text, file):
        keys = document.names()
        if {"source", "sink"} & set(keys):
            found.append(Item(CDC, "", document))
            continue
        if len(keys) != 1 or keys[0] not in KINDS:
            raise _unknown_kind(document, keys)
        name = document.value((keys[0], "name")) if isinstance(document.value((keys[0],)), dict) else None
        if name is not None:
            try:
                name_of(name)
            except ValueError as error:
                raise document.error(f"{keys[0]}: name: found {name!r}; {error}", (keys[0], "name")) from None
        found.append(Item(keys[0], name or "", document))
    return found


def _unknown_kind(document: Document, keys: Sequence[str]) -> ConfigError:
    if _CDC_KEYS & set(keys):
        return document.error("a Flink CDC pipeline needs source: and sink:")
    odd = next((key for key in keys if key not in KINDS), keys[-1] if keys else "")
    kinds = "source: and sink: (a Flink CDC pipeline), or one key a document: "
    kinds += ", ".join(f"{kind}: ({what})" for kind, what in KINDS.items())
    what = f"key {odd!r}{nearest(odd, KINDS)}" if odd not in KINDS else f"{' and '.join(keys)} in one document"
    return ConfigError(
        f"found {what}; want {kinds}; documents are separated by ---",
        document.place_of_key((odd,)),
    )
