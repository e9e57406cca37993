"""Options of the Kafka source, as Flink SQL spells them."""

import re
import warnings
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator

from vector_assets.clients.kafka_properties import PREFIX, Properties, PropertyError, is_secret
from vector_assets.engine.core import Position
from vector_assets.engine.errors import ConfigError, Place
from vector_assets.engine.options import Duration
from vector_assets.sources import kafka_tokens
from vector_assets.sources.kafka_formats import KeyValueFormats

STARTUP_MODES = ("earliest-offset", "latest-offset", "group-offsets", "timestamp", "specific-offsets")
BOUNDED_MODES = ("unbounded", "latest-offset", "group-offsets", "timestamp", "specific-offsets")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_SPECIFIC = re.compile(r"partition:(\d{1,9}),offset:(\d{1,18})")
# what Java reads otherwise than Python without an error there: intersections and nested sets of characters, octal
_JAVA_ONLY = re.compile(r"&&|\[[^\]]*(?<!\\)\[|\\0|\(\?P|\{,")


def _one_of(known: tuple[str, ...]) -> Callable[[object], object]:
    def check(value: object) -> object:
        if value not in known:
            raise ValueError(f"known: {', '.join(known)}")
        return value

    return check


def _hidden(values: object) -> object:
    if not isinstance(values, Mapping):
        return values
    return {name: SecretStr(value) if is_secret(name) else value for name, value in values.items()}


def parse_specific(text: str) -> dict[int, int]:
    """Flink's `partition:0,offset:42;partition:1,offset:300` as offsets by partition.

    Raises:
        ValueError: it is spelled otherwise, or names a partition twice.
    """
    found: dict[int, int] = {}
    for item in text.removesuffix(";").split(";"):
        match = _SPECIFIC.fullmatch(item.replace(" ", ""))
        if match is None:
            raise ValueError("want partition:<number>,offset:<number>[;...], such as partition:0,offset:42")
        if int(match[1]) in found:
            raise ValueError(f"partition {match[1]} is named twice")
        found[int(match[1])] = int(match[2])
    return found


def java_pattern(text: str) -> re.Pattern[str]:
    """The pattern, where Java and Python read it alike; it is matched against whole names.

    Raises:
        ValueError: it is no regular expression, or one that Java would read otherwise.
    """
    if _JAVA_ONLY.search(text):
        raise ValueError("want a regular expression without &&, sets inside sets, octal escapes, (?P and {,n}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return re.compile(text, re.ASCII)
    except (re.error, Warning) as error:
        raise ValueError(f"want a regular expression of those that Java and Python read alike: {error}") from None


Specific = Annotated[str, BeforeValidator(lambda text: parse_specific(str(text)) and str(text))]
Millis = Annotated[int, Field(ge=0)]


class KafkaOptions(KeyValueFormats):
    """Options of connector `kafka`; a format's own options (`csv.*`) are not among them."""

    pass_through: ClassVar[tuple[str, ...]] = (PREFIX,)
    idle: ClassVar[Mapping[str, str]] = {"scan.parallelism": "one consumer reads all partitions"}

    connector: Literal["kafka"]
    """`kafka`."""
    topic: str | None = None
    """The topic to read, or several separated by `;`. Either this or `topic-pattern` is required."""
    topic_pattern: str | None = Field(None, alias="topic-pattern")
    """A regular expression (one that Java and Python read alike) of whole names of topics; internal ones never."""
    startup_mode: Annotated[
        Literal["earliest-offset", "latest-offset", "group-offsets", "timestamp", "specific-offsets"],
        BeforeValidator(_one_of(STARTUP_MODES)),
    ] = Field(alias="scan.startup.mode")
    """Where a pipeline without a position starts, once for ever: `earliest-offset`, `latest-offset`, `group-offsets`
    (what `properties.group.id` has committed), `timestamp`, or `specific-offsets`."""
    startup_timestamp: Millis | None = Field(None, alias="scan.startup.timestamp-millis")
    """Start mode `timestamp`: the first record with this time (ms since 1970) or a later one, else the end."""
    startup_offsets: Specific | None = Field(None, alias="scan.startup.specific-offsets")
    """Start mode `specific-offsets`: `partition:0,offset:42;partition:1,offset:300`, for one topic. A partition that is
    not named starts at what the group has committed, else at its beginning."""
    bounded_mode: Annotated[
        Literal["unbounded", "latest-offset", "group-offsets", "timestamp", "specific-offsets"],
        BeforeValidator(_one_of(BOUNDED_MODES)),
    ] = Field("unbounded", alias="scan.bounded.mode")
    """Where a pipeline ends, frozen together with its start: `unbounded` (never), `latest-offset`, `group-offsets`,
    `timestamp`, or `specific-offsets`. Partitions that come later are not read."""
    bounded_timestamp: Millis | None = Field(None, alias="scan.bounded.timestamp-millis")
    """Bounded mode `timestamp`: ends before the first record with this time (ms since 1970) or a later one."""
    bounded_offsets: Specific | None = Field(None, alias="scan.bounded.specific-offsets")
    """Bounded mode `specific-offsets`: the first offset not to read, per partition, for one topic. A partition that is
    not named is not read."""
    discovery_interval: Duration | None = Field(None, alias="scan.topic-partition-discovery.interval")
    """At most so long until a new topic or partition is noticed. Every batch looks, so any duration is kept; `0` is
    refused."""
    parallelism: int | None = Field(None, alias="scan.parallelism", ge=1)
    """Has no effect, which is reported: one consumer reads all partitions."""
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

    @classmethod
    def _explain(cls, name: str, first: Any, raw: Mapping[str, str]) -> str:
        known = f"; known: {', '.join(STARTUP_MODES)}"
        is_mode = name == "scan.startup.mode" and first["type"] == "missing"
        return super()._explain(name, first, raw) + (known if is_mode else "")

    @field_validator("topic")
    @classmethod
    def _are_topics(cls, text: str | None) -> str | None:
        names = text.split(";") if text is not None else []
        for name in names:
            if not _TOPIC.fullmatch(name) or name in {".", ".."}:
                raise ValueError("want names of up to 249 letters, digits, '.', '_' and '-', separated by ';'")
        if len(set(names)) < len(names):
            raise ValueError("a topic is named twice")
        return text

    @field_validator("topic_pattern")
    @classmethod
    def _is_pattern(cls, text: str | None) -> str | None:
        if text is not None:
            java_pattern(text)
        return text

    @field_validator("discovery_interval")
    @classmethod
    def _is_discovered(cls, interval: timedelta | None) -> timedelta | None:
        if interval == timedelta(0):
            raise ValueError(
                "discovery cannot be switched off, or records of a new partition would be lost without a word; bound"
                " the pipeline by 'scan.bounded.mode', or choose by SET 'vector-assets.on-new-split'"
            )
        return interval

    @model_validator(mode="after")
    def _names_topics(self) -> Self:
        if (self.topic is None) == (self.topic_pattern is None):
            raise ValueError("option 'topic' or 'topic-pattern' is required, and only one of them")
        specific = [option for option, text in _offset_options(self).items() if text is not None]
        if specific and len(self.topics) != 1:
            raise ValueError(f"{specific[0]!r} is for one topic, as in Flink: write a pipeline for each")
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        properties = self.client()
        _check_needs("scan.startup", self.startup_mode, self.startup_timestamp, self.startup_offsets)
        _check_needs("scan.bounded", self.bounded_mode, self.bounded_timestamp, self.bounded_offsets)
        if self.startup_mode != "group-offsets" and "auto.offset.reset" in properties:
            raise ValueError(
                f"'{PREFIX}auto.offset.reset' has an effect only with 'scan.startup.mode' = 'group-offsets',"
                f" found {self.startup_mode!r}: a position that is lost is an error, never a jump"
            )
        for option, mode in (("scan.startup.mode", self.startup_mode), ("scan.bounded.mode", self.bounded_mode)):
            if mode == "group-offsets" and "group.id" not in properties:
                raise ValueError(f"{option!r} = 'group-offsets' needs '{PREFIX}group.id'")
        return self

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics by name; none when there is a pattern."""
        return tuple(self.topic.split(";")) if self.topic is not None else ()

    @property
    def is_bounded(self) -> bool:
        """True when the pipeline ends."""
        return self.bounded_mode != "unbounded"

    def client(self) -> Properties:
        """The client's properties, checked and translated."""
        return Properties(self.properties)

    def origin(self) -> tuple[str, ...]:
        """`("kafka", <topic>)`; several topics and patterns as they are written."""
        return ("kafka", self.topic if self.topic is not None else str(self.topic_pattern))

    def origins(self) -> tuple[tuple[str, ...], ...]:
        """One key for each topic, or one for the pattern."""
        return tuple(("kafka", topic) for topic in self.topics) or (self.origin(),)

    def start_option(self) -> str:
        """The startup mode with what decides it, and the bounded mode where there is one."""
        start = self._told(self.startup_mode, self.startup_timestamp, self.startup_offsets)
        if not self.is_bounded:
            return start
        return f"{start} until {self._told(self.bounded_mode, self.bounded_timestamp, self.bounded_offsets)}"

    def _told(self, mode: str, timestamp: int | None, offsets: str | None) -> str:
        if mode == "group-offsets":
            return f"{mode} of {self.properties['group.id']}"
        detail = {"timestamp": str(timestamp), "specific-offsets": offsets}.get(mode)
        return f"{mode} {detail}" if detail else mode

    def is_finished(self, position: Position) -> bool:
        """True when a bounded pipeline that stands there has nothing left to read, ever."""
        return self.is_bounded and kafka_tokens.is_finished(position)

    def reading(self) -> str:
        """The isolation level: pipelines of one level have the same records of a range."""
        return str(self.client().get("isolation.level", "read_committed"))

    def shown(self) -> dict[str, str]:
        """Every option as users spell it, defaults included; secrets as stars."""
        options: dict[str, Any] = super().shown()
        options.pop(PREFIX, None)
        return options | {f"{PREFIX}{name}": str(value) for name, value in self.properties.items()}


def _offset_options(options: KafkaOptions) -> dict[str, str | None]:
    return {
        "scan.startup.specific-offsets": options.startup_offsets,
        "scan.bounded.specific-offsets": options.bounded_offsets,
    }


def _check_needs(prefix: str, mode: str, timestamp: int | None, offsets: str | None) -> None:
    """A mode has what it needs, and nothing is given that only another mode would look at."""
    given: dict[str, tuple[str, object]] = {
        "timestamp": (f"{prefix}.timestamp-millis", timestamp),
        "specific-offsets": (f"{prefix}.specific-offsets", offsets),
    }
    for owner, (name, value) in given.items():
        if owner == mode and value is None:
            raise ValueError(f"'{prefix}.mode' = {mode!r} needs the option {name!r}")
        if owner != mode and value is not None:
            raise ValueError(f"option {name!r} has an effect only with '{prefix}.mode' = {owner!r}, found {mode!r}")
