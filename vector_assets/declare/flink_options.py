"""WITH options: placeholders, secrets, and the connector and format classes that read them."""

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlglot import exp

from vector_assets.declare.flink_script import Script, start_of
from vector_assets.declare.flink_tables import Declared
from vector_assets.engine.errors import ConfigError, Place
from vector_assets.engine.options import Options

Secrets = Callable[[str], str]

_PLACEHOLDER = re.compile(r"<([A-Za-z][\w .:/-]*)>")
_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_SECRET = re.compile(r"secret_values\.([\w.-]+)")


def registry_name(connector: str) -> str:
    """The name under which a connector is registered: `adbpg` for every version such as `adbpg-nightly-1.13`."""
    return "adbpg" if connector.startswith("adbpg-") else connector


@dataclass(frozen=True, slots=True)
class Written:
    """Options of one table with their secrets filled in; `hidden` maps each secret's value to how it was written.

    `unknown` are options whose secret is not set while nothing may be asked for: the option's name to the secret's.
    """

    values: Mapping[str, str] = field(repr=False)
    places: dict[str, Place]
    hidden: Mapping[str, str] = field(repr=False)
    unknown: Mapping[str, str]

    def only(self, is_wanted: Callable[[str], bool]) -> "Written":
        """The options whose names are wanted; the place of `connector` stays known."""
        values = {name: value for name, value in self.values.items() if is_wanted(name)}
        unknown = {name: secret for name, secret in self.unknown.items() if is_wanted(name)}
        return Written(values, self.places, self.hidden, unknown)

    def renamed(self, prefix: str) -> "Written":
        """The options by their names without `prefix`, which all of them have."""
        values = {name.removeprefix(prefix): value for name, value in self.values.items()}
        unknown = {name.removeprefix(prefix): secret for name, secret in self.unknown.items()}
        places = self.places | {name.removeprefix(prefix): self.places[name] for name in self.values}
        return Written(values, places, self.hidden, unknown)


def check_placeholders(script: Script, tables: Iterable[Declared]) -> None:
    """Refuse values that still hold a `<placeholder>` of the document they were copied from.

    Raises:
        ConfigError: at the first one; the message names them all.
    """
    found: list[tuple[int, str]] = []
    for table in tables:
        for name, option in table.options.items():
            # '<null>' is a common spelling of null in data
            if not name.endswith("null-literal"):
                found += [(match.start(), match[1]) for match in _PLACEHOLDER.finditer(script.text, *_span(option))]
    if not found:
        return
    offset, name = found[0]
    others = [f"<{other}>" for other in dict.fromkeys(other for _, other in found[1:]) if other != name]
    more = f" (and {', '.join(others)})" if others else ""
    secret = re.sub(r"\W+", "_", name)
    raise script.error(
        f"placeholder <{name}> is left over{more}: write the value, or ${{secret_values.{secret}}} and set that secret",
        offset,
    )


def secret_value(
    script: Script, node: exp.Expr, secrets: Secrets, name: str, *, offline: bool, stand_in: str
) -> str:  # fmt: skip
    """The text of a literal outside of WITH, with every `${secret_values.x}` in it replaced.

    With `offline`, a text with a secret that is not set is `stand_in`.

    Raises:
        ConfigError: at a `${...}` that is no secret, or at a secret that is not set (unless `offline`).
    """
    found: list[str] = []
    for match in _VARIABLE.finditer(node.name):
        secret = _SECRET.fullmatch(match[1])
        if secret is None:
            raise script.error(f"{match[0]} is not known; want ${{secret_values.<name>}}", node)
        try:
            found.append(secrets(secret[1]))
        except ConfigError as error:
            if offline:
                return stand_in
            raise script.error(f"{name}: {error.message}", node) from None
    return _replaced(node.name, found)


def _span(option: exp.Property) -> tuple[int, int]:
    """Offsets of the text between the quotes of the value."""
    meta = option.args["value"].meta
    return meta["start"] + 1, meta["end"]


def fill(script: Script, table: Declared, secrets: Secrets, *, offline: bool) -> Written:
    """The table's options with every `${secret_values.x}` replaced.

    Raises:
        ConfigError: at a `${...}` that is no secret, or at a secret that is not set (unless `offline`).
    """
    values: dict[str, str] = {}
    hidden: dict[str, str] = {}
    unknown: dict[str, str] = {}
    for name, option in table.options.items():
        found: list[str] = []
        for match in _VARIABLE.finditer(script.text, *_span(option)):
            try:
                value, missing = _value_of(match[1], secrets, offline=offline)
            except ConfigError as error:
                where = "" if _SECRET.fullmatch(match[1]) is None else f"option {name!r}: "
                raise script.error(f"{where}{error.message}", match.start()) from None
            found.append(value)
            if missing is None:
                hidden[value] = match[0]
            else:
                unknown[name] = missing
        values[name] = _replaced(option.args["value"].name, found)
    places = {name: script.place(start_of(option.this)) for name, option in table.options.items()}
    return Written(values, places, hidden, unknown)


def fill_texts(
    texts: Mapping[str, str], places: dict[str, Place], secrets: Secrets, *, offline: bool
) -> Written:  # fmt: skip
    """Options that stand anywhere but in a script, with every `${secret_values.x}` replaced.

    Raises:
        ConfigError: as `fill`.
    """
    values: dict[str, str] = {}
    hidden: dict[str, str] = {}
    unknown: dict[str, str] = {}
    for name, text in texts.items():
        found: list[str] = []
        for match in _VARIABLE.finditer(text):
            try:
                value, missing = _value_of(match[1], secrets, offline=offline)
            except ConfigError as error:
                raise ConfigError(f"{name}: {error.message}", places.get(name)) from None
            found.append(value)
            if missing is None:
                hidden[value] = match[0]
            else:
                unknown[name] = missing
        values[name] = _replaced(text, found)
    return Written(values, places, hidden, unknown)


def _value_of(variable: str, secrets: Secrets, *, offline: bool) -> tuple[str, str | None]:
    """The value of a `${variable}`, or with `offline` a stand-in and the name of the secret that is not set."""
    secret = _SECRET.fullmatch(variable)
    if secret is None:
        raise ConfigError(f"${{{variable}}} is not known; want ${{secret_values.<name>}}")
    try:
        return secrets(secret[1]), None
    except ConfigError:
        if not offline:
            raise
        return _stand_in(secret[1]), secret[1]


def _replaced(text: str, values: list[str]) -> str:
    """The text with its variables replaced in order; what a value holds is not looked at again."""
    pieces = _VARIABLE.split(text)[::2]
    return "".join(piece + value for piece, value in zip(pieces, [*values, ""], strict=True))


def _stand_in(secret: str) -> str:
    return re.sub(r"\W+", "_", f"secret_{secret}")


def options_class(connector: Any) -> type[Options]:
    """The class of options that a connector or format is constructed with."""
    found = inspect.signature(connector).parameters["options"].annotation
    assert isinstance(found, type), f"{connector}: parameter options is not annotated with its class"
    assert issubclass(found, Options), f"{connector}: {found} is not derived from Options"
    return found


def parse(connector: Any, written: Written, owner: str) -> Any:
    """Typed options for the constructor of `connector`.

    Raises:
        ConfigError: at the option; the value of a secret is never shown.
    """
    cls = options_class(connector)
    values = dict(written.values)
    for name, secret in written.unknown.items():
        values[name] = _fitting(cls, values, name, secret, owner)
    try:
        return cls.parse(values, owner, written.places)
    except ConfigError as error:
        raise ConfigError(_without(error.message, written.hidden), error.place) from None


def _fitting(cls: type[Options], values: Mapping[str, str], name: str, secret: str, owner: str) -> str:
    """A value in place of a secret that nobody may look up: the first of several shapes that the option takes."""
    word = _stand_in(secret)
    jaas = [f'x.{each}LoginModule required username="{word}" password="{word}";' for each in ("Plain", "Scram")]
    shapes = [values[name], f"{word}:9092", f"jdbc:postgresql://{word}:5432/{word}", f"http://{word}:80"]
    shapes += [f"http://{word}:{word}@{word}:80", "1", *jaas]
    marker = Place(name)
    for shape in shapes:
        try:
            cls.parse({**values, name: shape}, owner, {name: marker})
        except ConfigError as error:
            if error.place == marker:
                continue
        return shape
    return values[name]


def _without(message: str, hidden: Mapping[str, str]) -> str:
    for value in sorted(hidden, key=len, reverse=True):
        if value:
            message = message.replace(value, hidden[value])
    return message
