"""YAML documents that know where everything stands.

Scalars are text as it is written (`no` is not false); only an empty value, `null` and `~` are None.
What a value means is up to the form that reads it. Aliases and two keys of one name are refused.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import yaml

from vector_assets.engine.errors import ConfigError, Place
from vector_assets.engine.registry import nearest

Path = tuple[str | int, ...]
"""Keys and indexes that lead from a document to a value."""

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})


@dataclass(frozen=True, slots=True)
class Entry:
    """A value and its key; in a list the value stands for both."""

    key: Any
    value: Any


class Document:
    """One mapping of a file; `text` is the whole file, `number` the document's place in it from 0."""

    def __init__(self, text: str, file: str, number: int, node: Any) -> None:
        self.text = text
        self.file = file
        self.number = number
        self.node = node

    @property
    def place(self) -> Place:
        """Where the document begins."""
        return self._at(self.node)

    def entry(self, path: Path) -> Entry:
        """The value that a path leads to.

        Raises:
            KeyError: it leads nowhere.
        """
        here = Entry(self.node, self.node)
        for part in path:
            here = _children(here.value)[part]
        return here

    def place_of(self, path: Path) -> Place:
        """The value's place, or that of the nearest thing around it."""
        return self._at(self._deepest(path).value)

    def place_of_key(self, path: Path) -> Place:
        """The key's place, or that of the nearest thing around it."""
        return self._at(self._deepest(path).key)

    def error(self, message: str, path: Path = ()) -> ConfigError:
        """A ConfigError at a value."""
        return ConfigError(message, self.place_of(path))

    def value(self, path: Path = ()) -> Any:
        """The value as dictionaries, lists and text; None where the path leads nowhere."""
        try:
            return _plain(self.entry(path).value)
        except KeyError:
            return None

    def names(self) -> list[str]:
        """The document's own keys."""
        return [str(key) for key in _children(self.node)]

    def _deepest(self, path: Path) -> Entry:
        here = Entry(self.node, self.node)
        for part in path:
            children = _children(here.value)
            if part not in children:
                break
            here = children[part]
        return here

    def _at(self, node: Any) -> Place:
        return Place(self.file, node.start_mark.line + 1, node.start_mark.column + 1)

    @classmethod
    def all_of(cls, text: str, file: str) -> list[Self]:
        """The documents of a file; empty ones are passed over.

        Raises:
            ConfigError: at what is no YAML, is no mapping, is an alias, or is a key that is there already.
        """
        try:
            nodes = list(yaml.compose_all(text, Loader=yaml.SafeLoader))
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            place = Place(file, mark.line + 1, mark.column + 1) if mark else Place(file)
            raise ConfigError(f"this is no YAML: {error.problem or error.context}", place) from None
        except yaml.YAMLError as error:
            raise ConfigError(f"this is no YAML: {error}", Place(file)) from None
        except RecursionError:
            raise ConfigError("this is nested too deeply", Place(file)) from None
        found = []
        for number, node in enumerate(nodes):
            if isinstance(node, yaml.ScalarNode) and node.value in _NULLS:
                continue
            document = cls(text, file, number, node)
            if not isinstance(node, yaml.MappingNode):
                raise document.error("want keys and values (key: value)")
            document._check(node, set())
            found.append(document)
        return found

    def _check(self, node: Any, seen: set[int]) -> None:
        if id(node) in seen:
            raise ConfigError("aliases (*name) are not supported; write the value again", self._at(node))
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            for item in node.value:
                self._check(item, seen)
        elif isinstance(node, yaml.MappingNode):
            names: set[str] = set()
            for key, value in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    raise ConfigError("a key is a single word or text", self._at(key))
                if key.value in names:
                    raise ConfigError(f"key {key.value!r} is given twice", self._at(key))
                names.add(key.value)
                self._check(value, seen)


def _children(node: Any) -> Mapping[str | int, Entry]:
    if isinstance(node, yaml.MappingNode):
        return {key.value: Entry(key, value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return {number: Entry(value, value) for number, value in enumerate(node.value)}
    return {}


def _plain(node: Any) -> Any:
    if isinstance(node, yaml.MappingNode):
        return {key.value: _plain(value) for key, value in node.value}
    if isinstance(node, yaml.SequenceNode):
        return [_plain(value) for value in node.value]
    is_null = node.style is None and node.value in _NULLS
    return None if is_null else node.value


def scalars(value: Any, path: Path = ()) -> Iterator[tuple[Path, str]]:
    """Every text in a plain value with the path to it."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from scalars(item, (*path, key))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from scalars(item, (*path, number))
    elif value is not None:
        yield path, str(value)


def unknown_key(document: Document, path: Path, known: list[str], owner: str) -> ConfigError:
    """The error for a key that a form does not have; it names the nearest one."""
    listed = ", ".join(known)
    name = str(path[-1])
    return ConfigError(
        f"{owner}: unknown key {name!r}{nearest(name, known)}; known: {listed}", document.place_of_key(path)
    )
