"""Options of connectors and formats: the vendor's spelling in, typed values out.

A connector's options are one frozen pydantic model derived from `Options`; the vendor's spelling is the field's alias,
the line after a field is its documentation. Unknown names are errors that list the known ones and the nearest.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import timedelta
from fractions import Fraction
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, SecretStr, ValidationError

from vector_assets.engine.core import Position
from vector_assets.engine.errors import ConfigError, Place
from vector_assets.engine.registry import nearest

_DURATION_UNITS = {
    "ns": 1e-9, "nano": 1e-9, "nanos": 1e-9, "nanosecond": 1e-9, "nanoseconds": 1e-9,
    "us": 1e-6, "µs": 1e-6, "micro": 1e-6, "micros": 1e-6, "microsecond": 1e-6, "microseconds": 1e-6,
    "ms": 1e-3, "milli": 1e-3, "millis": 1e-3, "millisecond": 1e-3, "milliseconds": 1e-3,
    "s": 1.0, "sec": 1.0, "secs": 1.0, "second": 1.0, "seconds": 1.0,
    "m": 60.0, "min": 60.0, "mins": 60.0, "minute": 60.0, "minutes": 60.0,
    "h": 3600.0, "hour": 3600.0, "hours": 3600.0,
    "d": 86400.0, "day": 86400.0, "days": 86400.0,
}  # fmt: skip
_SIZE_UNITS = {"": 1, "b": 1, "bytes": 1}
for _power, _prefix in enumerate(("kibi", "mebi", "gibi", "tebi"), start=1):
    _letter = _prefix[0]
    _SIZE_UNITS |= dict.fromkeys((_letter, f"{_letter}b", f"{_letter}ib", f"{_prefix}bytes"), 1024**_power)
_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-zµ]*)\s*")
_CREDENTIALS = re.compile(r"(?<=//)[^/@\s]+(?=@)|(?<=password=)[^&;\s]+", re.IGNORECASE)


def parse_duration(text: object) -> timedelta:
    """`"3s"`, `"200 ms"`, `"5 min"` (Flink's units); a bare number is milliseconds, as in Flink."""
    if isinstance(text, timedelta):
        return text
    match = _QUANTITY.fullmatch(str(text))
    unit = match[2].lower() or "ms" if match else ""
    if not match or unit not in _DURATION_UNITS:
        raise ValueError(f"want a duration such as '200 ms', '3s', '5 min', found {text!r}")
    try:
        return timedelta(seconds=float(match[1]) * _DURATION_UNITS[unit])
    except OverflowError:
        raise ValueError(f"want a duration of at most {timedelta.max.days} days, found {text!r}") from None


def parse_size(text: object) -> int:
    """`"64 MB"` in bytes; units are powers of 1024, as in Flink; a bare number is bytes."""
    match = _QUANTITY.fullmatch(str(text))
    if not match or match[2].lower() not in _SIZE_UNITS:
        raise ValueError(f"want a size such as '64 MB', '512 kb', found {text!r}")
    return int(Fraction(match[1]) * _SIZE_UNITS[match[2].lower()])


def parse_flag(text: object) -> bool:
    """`true` or `false` in any case, as Flink reads Booleans."""
    spelled = str(text).lower()
    if spelled not in {"true", "false"}:
        raise ValueError(f"want true or false, found {text!r}")
    return spelled == "true"


Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
Flag = Annotated[bool, BeforeValidator(parse_flag)]
MemorySize = Annotated[int, BeforeValidator(parse_size)]


class OptionError(ConfigError):
    """An option does not fit the table that carries it; the front end adds the option's place."""

    def __init__(self, option: str, message: str) -> None:
        super().__init__(f"option {option!r}: {message}")
        self.option = option


class Options(BaseModel):
    """Base of every connector's options; build with `parse`, never with keyword arguments from a user."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, use_attribute_docstrings=True, hide_input_in_errors=True
    )

    pass_through: ClassVar[tuple[str, ...]] = ()
    """Prefixes (such as `properties.`) whose options reach the client as they are: a dict field with that alias."""

    idle: ClassVar[Mapping[str, str]] = {}
    """Options that are checked and have no effect here: the user's spelling to the reason."""

    def reports(self) -> tuple[str, ...]:
        """What to tell, once, about options that are set and have no effect."""
        fields = type(self).model_fields
        given = [fields[name].alias or name for name in self.model_fields_set]
        return tuple(f"option {name!r} has no effect: {why}" for name, why in self.idle.items() if name in given)

    @classmethod
    def known(cls) -> list[str]:
        """The options' names as users spell them."""
        return [field.alias or name for name, field in cls.model_fields.items()]

    @classmethod
    def parse(cls, raw: Mapping[str, str], owner: str, places: Mapping[str, Place] | None = None) -> Self:
        """Typed options from what the user wrote; `owner` (such as `connector adbpg`) starts every message.

        Raises:
            ConfigError: at the option's place: unknown, missing or malformed; secrets are never shown.
        """
        known = cls.known()
        values: dict[str, Any] = {}
        for name, value in raw.items():
            prefix = next((p for p in cls.pass_through if name.startswith(p) and name != p), None)
            if prefix:
                values.setdefault(prefix, {})[name.removeprefix(prefix)] = value
            else:
                values[name] = value
        for name in values:
            if name not in known:
                listed = ", ".join(sorted(known))
                raise ConfigError(
                    f"{owner}: unknown option {name!r}{nearest(name, known)}; known options: {listed}",
                    (places or {}).get(name),
                )
        try:
            return cls.model_validate(values, by_alias=True, by_name=False)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            name = ".".join(str(part) for part in first["loc"])
            place = (places or {}).get(name) or (places or {}).get("connector")
            raise ConfigError(f"{owner}: {cls._explain(name, first, raw)}", place) from None

    @classmethod
    def _explain(cls, name: str, first: Any, raw: Mapping[str, str]) -> str:
        if first["type"] == "missing":
            return f"option {name!r} is required"
        reason = str(first["msg"]).removeprefix("Value error, ")
        if not name:
            return reason
        if name not in raw or cls._is_secret(name):
            return f"option {name!r} has a value that is refused: {reason}"
        return f"option {name!r} has the value {_CREDENTIALS.sub('***', raw[name])!r}, which is refused: {reason}"

    @classmethod
    def _is_secret(cls, name: str) -> bool:
        return any(
            any(
                isinstance(kind, type) and issubclass(kind, SecretStr)
                for kind in (field.annotation, *getattr(field.annotation, "__args__", ()))
            )
            for key, field in cls.model_fields.items()
            if name in (key, field.alias)
        )

    def shown(self) -> dict[str, str]:
        """Every option as users spell it, defaults included; secrets as stars."""
        return {
            field.alias or name: str(getattr(self, name))
            for name, field in type(self).model_fields.items()
            if getattr(self, name) is not None
        }


class SourceOptions(Options, ABC):
    """Options of a source; says what the source is called outside and how a new pipeline starts."""

    @abstractmethod
    def origin(self) -> tuple[str, ...]:
        """Key of the external asset, such as `("kafka", "vector_ingest")`."""

    def origins(self) -> tuple[tuple[str, ...], ...]:
        """Keys of all external assets it reads; `origin` names them together."""
        return (self.origin(),)

    @abstractmethod
    def start_option(self) -> str:
        """The start option as the user wrote it; the ledger keeps it to report a later change."""

    def is_finished(self, position: Position) -> bool:
        """True when a pipeline that stands there has nothing left to read, ever: it is bounded. Asks nobody."""
        return False

    def poll_seconds(self) -> float | None:
        """How often to look for new records, where a look has its price; None lets the engine choose."""
        return None

    def reading(self) -> str:
        """What of a range's records is read, where there is a choice: archives of the same reading are alike."""
        return ""


class SinkOptions(Options, ABC):
    """Options of a sink; says which object it writes, so that two pipelines on one target are refused.

    `is_shared` is true of a sink that keeps nothing, which any number of pipelines may write to.
    """

    is_shared: ClassVar[bool] = False

    @abstractmethod
    def target(self) -> str:
        """The target's full name without credentials, such as `adbpg://host:5432/db/schema.table`."""

    @property
    def folder(self) -> str | None:
        """Folder that the target's files lie in, as far as the options tell; in it nobody else may write."""
        return None

    def refusal_of_changes(self) -> tuple[str, str] | None:
        """The option that makes updates and deletes impossible, and what to set it to; None where they can be written.

        A declaration whose source can give such rows is refused by it.
        """
        return None
