"""Options of the Kafka source, as Flink SQL spells them."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator

from vector_assets.clients.kafka_properties import PREFIX, Properties, PropertyError, is_secret
from vector_assets.engine.errors import ConfigError, Place
from vector_assets.sources.kafka_formats import KeyValueFormats

_MODES = ("earliest-offset", "latest-offset", "group-offsets")
_LATER_MODES = ("timestamp", "specific-offsets")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")


def _mode(value: object) -> object:
    if value in _LATER_MODES:
        raise ValueError(f"not supported yet; known: {', '.join(_MODES)}")
    if value not in _MODES:
        raise ValueError(f"known: {', '.join(_MODES)}")
    return value


def _hidden(values: object) -> object:
    if not isinstance(values, Mapping):
        return values
    return {name: SecretStr(value) if is_secret(name) else value for name, value in values.items()}


class KafkaOptions(KeyValueFormats):
    """Options of connector `kafka`; a format's own options (`csv.*`) are not among them."""

    pass_through: ClassVar[tuple[str, ...]] = (PREFIX,)

    connector: Literal["kafka"]
    """`kafka`."""
    topic: str
    """The topic to read; one per pipeline."""
    startup_mode: Annotated[Literal["earliest-offset", "latest-offset", "group-offsets"], BeforeValidator(_mode)] = (
        Field("group-offsets", alias="scan.startup.mode")
    )
    """Where a pipeline without a position starts, once for ever: `earliest-offset`, `latest-offset`, or
    `group-offsets` (what `properties.group.id` has committed)."""
    properties: Annotated[dict[str, str | SecretStr], BeforeValidator(_hidden)] = Field(
        default_factory=dict, alias="properties."
    )
    """Properties of the Kafka client in the Java client's spelling, `properties.bootstrap.servers` among them."""

    @classmethod
    def parse(cls, raw: Mapping[str, str], owner: str, places: Mapping[str, Place] | None = None) -> Self:
        """As the base, with errors in client properties at their own place."""
        given = {name.removeprefix(PREFIX): value for name, value in raw.items() if name.startswith(PREFIX)}
        try:
            Properties(given)
        except PropertyError as error:
            place = (places or {}).get(f"{PREFIX}{error.name}") or (places or {}).get("connector")
            raise ConfigError(f"{owner}: {error}", place) from None
        return super().parse(raw, owner, places)

    @field_validator("topic")
    @classmethod
    def _is_one_topic(cls, name: str) -> str:
        if ";" in name or "," in name:
            raise ValueError("one topic per pipeline; write a pipeline for each")
        if not _TOPIC.fullmatch(name) or name in {".", ".."}:
            raise ValueError("want up to 249 letters, digits, '.', '_' and '-'")
        return name

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        properties = self.client()
        if self.startup_mode != "group-offsets":
            if "auto.offset.reset" in properties:
                raise ValueError(
                    f"'{PREFIX}auto.offset.reset' has an effect only with 'scan.startup.mode' = 'group-offsets',"
                    f" found {self.startup_mode!r}: a position that is lost is an error, never a jump"
                )
        elif "group.id" not in properties:
            raise ValueError(
                f"'scan.startup.mode' = 'group-offsets' (the default) needs '{PREFIX}group.id'; or set"
                " 'scan.startup.mode' to 'earliest-offset' or 'latest-offset'"
            )
        return self

    def client(self) -> Properties:
        """The client's properties, checked and translated."""
        return Properties(self.properties)

    def origin(self) -> tuple[str, ...]:
        """`("kafka", <topic>)`."""
        return ("kafka", self.topic)

    def start_option(self) -> str:
        """The startup mode; with the group's name where that decides."""
        if self.startup_mode == "group-offsets":
            return f"group-offsets of {self.properties['group.id']}"
        return self.startup_mode

    def shown(self) -> dict[str, str]:
        """Every option as users spell it, defaults included; secrets as stars."""
        options: dict[str, Any] = super().shown()
        options.pop(PREFIX, None)
        return options | {f"{PREFIX}{name}": str(value) for name, value in self.properties.items()}
