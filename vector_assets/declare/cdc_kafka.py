"""`source:` of type `kafka`: topics with the changes of several tables, as debezium-json or canal-json."""

from collections.abc import Mapping
from contextlib import closing
from functools import partial
from typing import Annotated, ClassVar, Literal

import pyarrow as pa
from pydantic import BeforeValidator, Field, field_validator

from vector_assets.declare.cdc_form import CaptureForm, patterns
from vector_assets.declare.cdc_reading import Reading, TableReading, Wanted, check_options
from vector_assets.declare.flink_options import Secrets, fill_texts, parse
from vector_assets.declare.yaml_text import Document
from vector_assets.engine import registry
from vector_assets.engine.captures import CapturedTable
from vector_assets.engine.core import RAW_SCHEMA, BatchLimit, Range, Span
from vector_assets.engine.errors import ConfigError
from vector_assets.engine.options import Flag
from vector_assets.engine.schema import Table
from vector_assets.formats import FORMATS
from vector_assets.formats.enveloped import EnvelopedDecoder, EnvelopeOptions
from vector_assets.formats.enveloped_look import FoundTable, tables_in
from vector_assets.sources.kafka import KafkaOptions, KafkaSource

_NOT_HERE = {
    "connector", "format", "key.format", "key.fields", "key.fields-prefix", "value.fields-include", "scan.parallelism"
}  # fmt: skip
_SPREAD = "changes of a table may be in any partitions and topics"
_LOOK_BYTES = 64 * 1024**2


def _lower(text: object) -> object:
    return text.lower() if isinstance(text, str) else text


class KafkaCaptureOptions(CaptureForm):
    """What `source:` of type `kafka` may say, beside the options of connector `kafka` and of the format."""

    idle: ClassVar[Mapping[str, str]] = {
        "scan.check.duplicated.group.id": "positions are kept in the ledger, so that a group may be shared",
        "debezium-json.distributed-tables": _SPREAD,
        "canal-json.distributed-tables": _SPREAD,
    }

    type: Literal["kafka"]
    """`kafka`."""
    name: str | None = None
    """Name of the source, for people."""
    tables: str = r"\.*.\.*"
    r"""Tables that are read: `database.table`, each a regular expression; several separated by commas. All, unless
    set."""
    exclude: str | None = Field(None, alias="tables.exclude")
    """Tables that are not, spelled the same way."""
    format: Literal["debezium-json", "canal-json"] = Field("debezium-json", alias="value.format")
    """How the records are written: `debezium-json` or `canal-json`; its options are `debezium-json.*` and
    `canal-json.*`."""
    strategy: Annotated[Literal["continuous", "static"], BeforeValidator(_lower)] = Field(
        "continuous", alias="schema.inference.strategy"
    )
    """`continuous`: columns that come later are followed; `static`: columns never change, as with
    `schema.change.behavior: ignore`."""
    most_records: int = Field(50, alias="scan.max.pre.fetch.records", ge=1, le=100_000)
    """How many of the newest records of every partition a look for tables reads."""
    metadata: str | None = Field(None, alias="metadata.list")
    """Metadata that expressions may use, separated by commas: `op_ts`."""
    duplicated: Flag | None = Field(None, alias="scan.check.duplicated.group.id")
    """Without effect: positions are kept in the ledger."""
    debezium_distributed: Flag | None = Field(None, alias="debezium-json.distributed-tables")
    """Without effect: changes of a table may be in any partition."""
    canal_distributed: Flag | None = Field(None, alias="canal-json.distributed-tables")
    """Without effect: changes of a table may be in any partition."""

    _are_patterns = field_validator("tables", "exclude")(patterns)

    @property
    def follows(self) -> bool:
        """Columns may change."""
        return self.strategy == "continuous"


def kafka_reading(
    document: Document, texts: Mapping[str, str], secrets: Secrets, *, offline: bool
) -> "KafkaReading":  # fmt: skip
    """What `source:` says.

    Raises:
        ConfigError: at the option that is wrong.
    """
    places = {name: document.place_of(("source", name)) for name in texts}
    places["connector"] = document.place_of(("source", "type"))
    own = KafkaCaptureOptions.known()
    mine = {name: text for name, text in texts.items() if name in own}
    filled = fill_texts(mine, places, secrets, offline=offline)
    form = KafkaCaptureOptions.parse(filled.values, "source kafka", places)
    make = registry.load(FORMATS, "format", form.format)
    kafka = [name for name in KafkaOptions.known() if name not in _NOT_HERE]
    if "key.format" in texts:
        what = "key.format is not built: debezium's keys are looked at for the names of their columns anyway"
        raise ConfigError(f"source kafka: {what}", document.place_of_key(("source", "key.format")))
    of_format = [name for name in texts if name.startswith(f"{form.format}.") and name not in own]
    check_options(document, "kafka", texts, [*own, *kafka, *of_format], ("properties.",))
    rest = {name: text for name, text in texts.items() if name not in own}
    written = fill_texts(rest | {"connector": "kafka", "value.format": form.format}, places, secrets, offline=offline)
    options: KafkaOptions = parse(KafkaSource, written.only(lambda name: name not in of_format), "source kafka")
    format_options: EnvelopeOptions = parse(make, written.only(lambda name: name in of_format), f"format {form.format}")
    return KafkaReading(form, options, format_options)


class KafkaReading(Reading):
    """Topics of changes."""

    form: KafkaCaptureOptions
    restart = "earliest"

    def __init__(self, form: KafkaCaptureOptions, options: KafkaOptions, format_options: EnvelopeOptions) -> None:
        self.form, self._options, self._format_options = form, options, format_options

    @property
    def where(self) -> str:
        """The topics."""
        return f"Kafka {self._options.origin()[1]}"

    def of(self, wanted: Wanted) -> TableReading:
        """All topics, of which the decoder takes the records of these tables."""
        names = [table.name for table in wanted.tables]
        decoder = EnvelopedDecoder(
            self._format_options, wanted.columns, names, wanted.behavior, metadata=wanted.used
        )  # fmt: skip
        reports = (*self._options.reports(), *self._format_options.reports())
        return TableReading(
            "kafka", self._options, decoder, RAW_SCHEMA, partial(_opened, self._options, wanted.name),
            format=self.form.format, format_options=self._format_options, reports=reports,
        )  # fmt: skip

    @property
    def tells_all(self) -> bool:
        """False: a look reads the newest records only."""
        return False

    def discover(self, connect_seconds: int | None = None) -> list[CapturedTable]:
        """The wanted tables that the newest records of every partition are of.

        Raises:
            VectorAssetsError: a topic is not there, or its broker does not answer, or refuses us.
        """
        found = self._found(connect_seconds)
        return [_captured(table) for table in found if self.form.wants(*table.name.split(".", 1))]

    def names(self) -> list[str]:
        """Every table that the newest records are of."""
        return sorted(table.name for table in self._found(None))

    def _found(self, connect_seconds: int | None) -> list[FoundTable]:
        with closing(KafkaSource(self._options, Table("tables", ()), timeout_seconds=connect_seconds)) as source:
            records = _newest(source, self.form.most_records)
        has_schema = getattr(self._format_options, "schema_include", False)
        return tables_in(self.form.format, records, has_schema=has_schema)


def _opened(options: KafkaOptions, pipeline: str, table: Table) -> KafkaSource:
    return KafkaSource(options, table, pipeline=pipeline)


def _newest(source: KafkaSource, most: int) -> list[tuple[bytes | None, bytes | None]]:
    """Key and value of the newest records of every partition, as far as their offsets are that close to the end."""
    first, end = source.locate("earliest"), source.frontier()
    ranges = [
        Range(split, source.token(max(source.number(first[split]), source.number(token) - most), token), token)
        for split, token in end.items()
        if split in first and source.number(first[split]) < source.number(token)
    ]
    if not ranges:
        return []
    batches = list(source.read(Span(tuple(ranges)), BatchLimit(most * len(ranges), _LOOK_BYTES)))
    raw = pa.Table.from_batches(batches, RAW_SCHEMA)
    return list(zip(raw.column("key").to_pylist(), raw.column("value").to_pylist(), strict=True))


def _captured(table: FoundTable) -> CapturedTable:
    return CapturedTable(table.name, table.columns, table.key, None, table.left_out)
