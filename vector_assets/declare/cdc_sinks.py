"""`sink:` of a CDC pipeline: MaxCompute by its own options, every other sink by those of its Flink SQL connector."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from vector_assets.declare.cdc_names import Place as Target
from vector_assets.declare.flink_options import Secrets, Written, fill_texts, parse
from vector_assets.declare.yaml_text import Document, scalars
from vector_assets.engine import registry
from vector_assets.engine.errors import ConfigError
from vector_assets.engine.options import SinkOptions
from vector_assets.engine.registry import nearest
from vector_assets.engine.schema import LogicalType
from vector_assets.sinks import SINKS

WHERE = ("sink",)
MAXCOMPUTE = "maxcompute"


@dataclass(frozen=True, slots=True)
class Filled:
    """How a connector spells the name of a table and of its database; options that are set unless written.

    `keyed` are those of tables with a key only; `partition` is the option that takes the partition's columns. With
    `makes_database` the database of a route is the connector's, unless the option is written.
    """

    table: str | None = None
    database: str | None = None
    keyed: Mapping[str, str] = field(default_factory=dict)
    partition: str | None = None
    makes_database: bool = False


CONNECTORS = {
    "adbpg": Filled("tablename", "targetschema", {"conflictmode": "update"}),
    "blackhole": Filled(),
    "iceberg": Filled(
        "catalog-table", "catalog-database", {"write.upsert.enabled": "true"}, partition="partition",
        makes_database=True,
    ),
    "milvus": Filled("collectionName", "databaseName"),
    "opensearch-2": Filled("index"),
    "paimon": Filled("catalog-table", "catalog-database", partition="partition", makes_database=True),
    "print": Filled(),
}  # fmt: skip
"""Connectors that can be sinks of a CDC pipeline, beside MaxCompute."""
_SAME = {"postgres": "adbpg", "opensearch": "opensearch-2"}
"""Other names of them, by what they speak to."""


@dataclass(frozen=True, slots=True)
class TableEnd:
    """The sink of one table; `make` is the connector's class."""

    connector: str
    make: Any = field(repr=False)
    options: SinkOptions
    reports: tuple[str, ...] = ()


class CdcSink(ABC):
    """The `sink:` of a file, before it is known which tables there are.

    `has_databases`: rows of several databases stay apart in it.
    """

    type: str
    stored: Callable[[LogicalType], LogicalType] = staticmethod(lambda kind: kind)
    texts_partition: bool = False

    @abstractmethod
    def has_databases(self, facts: Mapping[str, Any]) -> bool:
        """True where two databases do not meet in one place; `facts` is what `ask` gave when a table was found."""

    def check(self, more: Mapping[str, str]) -> None:
        """Make sure of the options before any table is known; `more` are those that single tables may get.

        Raises:
            ConfigError: at the option that is wrong.
        """
        self.end(Target("database", "table"), {}, is_keyed=True, partition=(), more=more)

    @abstractmethod
    def end(
        self, target: Target, facts: Mapping[str, Any], *, is_keyed: bool, partition: tuple[str, ...],
        more: Mapping[str, str],
    ) -> TableEnd:  # fmt: skip
        """The sink of a table; `more` are options for it alone.

        Raises:
            ConfigError: at the option that is wrong.
        """

    def ask(self) -> dict[str, Any]:
        """What has to be known of the service before a table has its place.

        Raises:
            VectorAssetsError: it does not answer, or refuses us.
        """
        return {}


def sink_of(document: Document, secrets: Secrets, *, offline: bool) -> CdcSink:
    """The sink of a file; nothing is contacted.

    Raises:
        ConfigError: at the option that is wrong.
    """
    for name in ("include.schema.changes", "exclude.schema.changes"):
        if document.value((*WHERE, name)) is not None:
            what = f"sink: {name!r} is not built: schema.change.behavior of pipeline: says it for all kinds of changes"
            raise ConfigError(what, document.place_of_key((*WHERE, name)))
    texts = options_at(document, "sink")
    kind = texts.get("type")
    if kind is None:
        raise ConfigError("sink: key 'type' is required", document.place_of_key(WHERE))
    places = {name: document.place_of((*WHERE, name)) for name in texts} | {
        "connector": document.place_of((*WHERE, "type"))
    }
    written = fill_texts(texts, places, secrets, offline=offline)
    if kind == MAXCOMPUTE:
        from vector_assets.declare.cdc_maxcompute import MaxComputeCdc

        return MaxComputeCdc(document, written)
    connector = _SAME.get(kind, kind)
    if connector not in CONNECTORS:
        known = sorted({MAXCOMPUTE, *CONNECTORS, *_SAME})
        what = f"sink: unknown type {kind!r}{nearest(kind, known)}; known: {', '.join(known)}"
        raise document.error(what, (*WHERE, "type"))
    return ConnectorSink(document, kind, connector, written)


def options_at(document: Document, key: str) -> dict[str, str]:
    """The options below a key, nested keys joined by dots.

    Raises:
        ConfigError: there are none, or a value is a list.
    """
    value = document.value((key,))
    if not isinstance(value, dict):
        raise document.error(f"{key}: want keys and values (key: value)", (key,))
    found: dict[str, str] = {}
    for path, text in scalars(value):
        if any(isinstance(part, int) for part in path):
            raise document.error(f"{key}: {path[0]}: want one value, found a list", (key, path[0]))
        found[".".join(map(str, path))] = text
    return found


class ConnectorSink(CdcSink):
    """A sink by the options of its Flink SQL connector, with the table's name filled in from the route."""

    def __init__(self, document: Document, kind: str, connector: str, written: Written) -> None:
        self.type, self._connector, self._document = kind, connector, document
        self._filled = CONNECTORS[connector]
        self._make = registry.load(SINKS, "sink connector", connector)
        for name in (self._filled.table, "connector"):
            if name is not None and name in written.values:
                what = f"sink: option {name!r} is said by the routes: every table has its own"
                raise ConfigError(what, document.place_of_key((*WHERE, name)))
        self._written = written.only(lambda name: name not in {"type", "name"})
        self._has_database = self._filled.database is not None and self._filled.database in written.values

    def has_databases(self, facts: Mapping[str, Any]) -> bool:
        """True of lakes, unless one database is named, and of sinks that keep nothing."""
        del facts
        return self._filled.table is None or (self._filled.makes_database and not self._has_database)

    def end(
        self, target: Target, facts: Mapping[str, Any], *, is_keyed: bool, partition: tuple[str, ...],
        more: Mapping[str, str],
    ) -> TableEnd:  # fmt: skip
        """The sink of a table, by its connector's own class of options."""
        filled = self._filled
        given = {"connector": self._connector}
        if filled.table is not None:
            given[filled.table] = target.table
        if filled.makes_database and not self._has_database and target.database:
            given[str(filled.database)] = target.database
        if partition:
            if filled.partition is None:
                what = f"partition-keys: sink {self.type} has no partitions by columns"
                raise self._document.error(what, ("transform",))
            given[filled.partition] = ",".join(partition)
        defaults = {name: text for name, text in filled.keyed.items() if is_keyed}
        places = self._written.places | dict.fromkeys(given, self._document.place_of((*WHERE, "type")))
        values = defaults | dict(self._written.values) | dict(more) | given
        options = parse(self._make, Written(values, places, self._written.hidden, self._written.unknown), "sink")
        return TableEnd(self._connector, self._make, options)
