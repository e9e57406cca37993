"""The YAML files of the folder of pipelines: read together, and written whole or not at all."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vector_assets.cli.output import usage
from vector_assets.engine import env
from vector_assets.engine.errors import ConfigError

if TYPE_CHECKING:
    from vector_assets.declare.lake_shelf import Item, Shelf


def shelf() -> "Shelf":
    """Every YAML document of the folder.

    Raises:
        ConfigError: a file cannot be read.
    """
    from vector_assets.declare import shelf_of_folder

    found = shelf_of_folder(env.pipelines_dir())
    for error in found.wrong.values():
        raise error
    return found


def new_name(kind: str, taken: set[str], clock: Callable[[], float] = time.time) -> str:
    """A name of the type and the time, as the service makes one: `kafka_20260301_080000`."""
    base = name = f"{kind}_{time.strftime('%Y%m%d_%H%M%S', time.gmtime(clock()))}"
    number = 2
    while name in taken:
        name, number = f"{base}_{number}", number + 1
    return name


def pairs(texts: list[str] | None, option: str) -> dict[str, str]:
    """`name=value` arguments by name."""
    found = {}
    for text in texts or ():
        name, separator, value = text.partition("=")
        if not separator or not name:
            usage(f"{option}: want NAME=VALUE, found {text!r}")
        found[name] = value
    return found


@dataclass(frozen=True, slots=True)
class Change:
    """A file's new text; None takes the file away."""

    path: Path
    text: str | None

    def apply(self) -> None:
        """Put the new text in place of the old one at once.

        Raises:
            ConfigError: the folder or the file cannot be written.
        """
        try:
            if self.text is None:
                self.path.unlink()
            else:
                _write(self.path, self.text)
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be written: {error.strerror or error}") from error


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            draft.chmod(path.stat().st_mode)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def path_of(item: "Item") -> Path:
    """The file that holds a document."""
    return Path(item.file).absolute()


def added(text: str, file: Path | None, name: str) -> Change:
    """A document more: in a file of its own called like it, with a number where that is taken, or at the end of `file`.

    Raises:
        ConfigError: the file that is given is outside of the folder of pipelines.
    """
    folder = env.pipelines_dir()
    path = (file if file is not None else _free(folder, name)).absolute()
    if not path.is_relative_to(folder) or path.suffix not in {".yaml", ".yml"}:
        raise ConfigError(f"--file {path}: want a .yaml file in the folder of pipelines, {folder}")
    if not path.exists():
        return Change(path, text)
    before = path.read_text(encoding="utf-8-sig")
    glue = "" if not before.strip() else "---\n" if before.endswith("\n") else "\n---\n"
    return Change(path, before + glue + text)


def _free(folder: Path, name: str) -> Path:
    path, number = folder / f"{name}.yaml", 2
    while path.exists():
        path, number = folder / f"{name}_{number}.yaml", number + 1
    return path


def without(item: "Item") -> Change:
    """The file without a document; a file with nothing else in it goes."""
    from vector_assets.declare.lake_shelf import items_of
    from vector_assets.declare.yaml_edit import without_document

    left = without_document(item.document.text, item.document.number)
    return Change(path_of(item), left if items_of(left, item.file) else None)


def with_value(item: "Item", path: tuple[str | int, ...], value: object) -> Change:
    """The file with one value of a document changed.

    Raises:
        ConfigError: the file is spelled in a way that cannot be edited by command.
    """
    from vector_assets.declare.yaml_edit import check_same_but
    from vector_assets.declare.yaml_edit import with_value as edited

    document = item.document
    after = edited(document.text, document.number, path, value, item.file)
    check_same_but(document.text, after, document.number, path, item.file)
    return Change(path_of(item), after)
