"""Connector upsert-kafka as a source: the last record of a key is its row, a null value deletes the key.

Reading is that of `kafka`, always from the earliest offset on; the key's columns are those of the PRIMARY KEY.
"""

from typing import ClassVar, Literal

from pydantic import Field

from vector_assets.engine.schema import Table
from vector_assets.sources.kafka import KafkaSource
from vector_assets.sources.kafka_options import KafkaOptions

_KAFKA_ONLY = ("format", "key.fields", "topic-pattern")


class UpsertKafkaOptions(KafkaOptions):
    """Options of connector `upsert-kafka`: those of `kafka` without a start, which is always the earliest offset."""

    key_from_primary_key: ClassVar[bool] = True

    connector: Literal["upsert-kafka"]  # type: ignore[assignment]
    """`upsert-kafka`."""
    topic: str
    """The topic to read, or several separated by `;`."""
    key_format: str = Field(alias="key.format")
    """Format of the records' keys, which hold the PRIMARY KEY; its options are spelled `key.<format>.*`."""
    value_format: str = Field(alias="value.format")
    """Format of the records' values, its options spelled `value.<format>.*`. With a format of inserts each record is an
    upsert; a changelog format says itself what each row does. A null value deletes the key with either."""
    startup_mode: Literal["earliest-offset"] = Field("earliest-offset", alias="scan.startup.mode")
    """Not an option here: a later start would miss keys."""

    @classmethod
    def known(cls) -> list[str]:
        """The options' names as users spell them."""
        return [name for name in super().known() if name not in _KAFKA_ONLY and not name.startswith("scan.startup.")]

    def shown(self) -> dict[str, str]:
        """Every option as users spell it, defaults included; secrets as stars."""
        known = self.known()
        return {name: value for name, value in super().shown().items() if name in known or "properties." in name}


class UpsertKafkaSource(KafkaSource):
    """One topic, read as `KafkaSource` reads it."""

    UPSERT: ClassVar[bool] = True
    """Records are upserts and deletes by the PRIMARY KEY; a delete may hold nothing but the key."""

    def __init__(self, options: UpsertKafkaOptions, table: Table, *, pipeline: str = "") -> None:
        super().__init__(options, table, pipeline=pipeline)
