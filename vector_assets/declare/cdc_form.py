"""The keys of a Flink CDC pipeline, as Flink CDC's documents spell them: pipeline, route, transform, and MySQL's."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from vector_assets.declare.cdc_names import RouteRule, TablePatterns, sink_place
from vector_assets.engine.options import Duration, Flag, Options

BEHAVIORS = ("lenient", "evolve", "try_evolve", "exception", "ignore")
METADATA_NAMES = ("op_ts",)
"""What `metadata.list` may name: the time of a change, as Flink CDC's BIGINT of milliseconds."""
_UTC = frozenset({"UTC", "ETC/UTC", "GMT", "Z", "+00:00"})


def _lower(text: Any) -> Any:
    return text.lower() if isinstance(text, str) else text


def patterns(text: str | None) -> str | None:
    """The text, if it is made of patterns of tables."""
    if text is not None:
        TablePatterns(text)
    return text


def names_of(text: str | None) -> tuple[str, ...]:
    """Names separated by commas."""
    return tuple(name.strip().strip("`") for name in (text or "").split(",") if name.strip())


class Route(Options):
    """An item of `route:`."""

    source_table: str = Field(alias="source-table")
    """Tables that it is for: `database.table`, each a regular expression; several separated by commas."""
    sink_table: str = Field(alias="sink-table")
    """Where their rows go: `database.table` or `table`."""
    replace_symbol: str | None = Field(None, alias="replace-symbol", min_length=1)
    """Text in `sink-table` that stands for the source table's own name, such as `<>`."""
    description: str | None = None
    """For people."""

    _is_patterns = field_validator("source_table")(patterns)

    @model_validator(mode="after")
    def _names_a_table(self) -> Self:
        if self.replace_symbol is not None and self.replace_symbol not in self.sink_table:
            raise ValueError(f"replace-symbol {self.replace_symbol!r} is not in sink-table {self.sink_table!r}")
        sink_place(self.sink_table.replace(self.replace_symbol, "t") if self.replace_symbol else self.sink_table)
        return self

    @property
    def rule(self) -> RouteRule:
        """What it says."""
        return RouteRule(self.source_table, self.sink_table, self.replace_symbol)


class TransformRule(Options):
    """An item of `transform:`."""

    source_table: str = Field(alias="source-table")
    """Tables that it is for: `database.table`, each a regular expression; several separated by commas."""
    projection: str | None = None
    r"""Columns of the target, as behind SELECT: `\*, price * 2 AS doubled, __table_name__ AS origin`; default: all."""
    filter: str | None = None
    """Which rows there are, as behind WHERE."""
    primary_keys: str | None = Field(None, alias="primary-keys")
    """Columns of the target's key, separated by commas; the source table's unless set."""
    partition_keys: str | None = Field(None, alias="partition-keys")
    """Columns that the target is partitioned by, separated by commas."""
    table_options: str | None = Field(None, alias="table-options")
    """Options of the sink for these tables alone: `key1=value1,key2=value2`."""
    converter: Annotated[Literal["SOFT_DELETE"] | None, BeforeValidator(lambda text: text and str(text).upper())] = (
        Field(None, alias="converter-after-transform")
    )
    """`SOFT_DELETE`: what is deleted stays in the target, as a row with `__data_event_type__` `-D`."""
    description: str | None = None
    """For people; the description of the asset."""

    _is_patterns = field_validator("source_table")(patterns)

    @field_validator("table_options")
    @classmethod
    def _are_pairs(cls, text: str | None) -> str | None:
        for part in (text or "").split(","):
            if text is not None and not re.fullmatch(r"\s*[^=\s]+\s*=.*", part):
                raise ValueError(f"want key1=value1,key2=value2; found {part.strip()!r}")
        return text

    @property
    def options(self) -> dict[str, str]:
        """`table-options` as names and values."""
        pairs = (part.partition("=") for part in (self.table_options or "").split(",") if part.strip())
        return {name.strip(): value.strip() for name, _, value in pairs}


class PipelineForm(Options):
    """What `pipeline:` may say, beside settings that begin with `vector-assets.`."""

    idle: ClassVar[Mapping[str, str]] = {
        "parallelism": "threads are chosen by the engine; see vector-assets.memory",
        "execution.runtime-mode": "records always come in micro-batches",
        "schema-operator.rpc-timeout": "there is no schema operator to wait for",
        "schema.operator.uid": "there are no operators",
        "operator.uid.prefix": "there are no operators",
        "flink-conf": "there is no Flink cluster",
    }

    name: str | None = Field(None, min_length=1)
    """Name of the pipeline, which those of its tables begin with; what is no letter, digit or `_` becomes `_`; default:
    the file's name without its ending."""
    behavior: Annotated[Literal["lenient", "evolve", "try_evolve", "exception", "ignore"], BeforeValidator(_lower)] = (
        Field("lenient", alias="schema.change.behavior")
    )
    """What becomes of columns that change: see below."""
    keyless: Literal["dead_letter", "fail"] = Field("dead_letter", alias="vector-assets.keyless-changes")
    """What becomes of updates and deletes of a table without a primary key: each is a dead letter, or the pipeline
    stops."""
    time_zone: str = Field("UTC", alias="local-time-zone")
    """Only UTC: a replay means the same on every machine."""
    parallelism: int | None = Field(None, ge=1)
    """Without effect: threads are chosen by the engine."""
    runtime_mode: Annotated[Literal["streaming"] | None, BeforeValidator(_lower)] = Field(
        None, alias="execution.runtime-mode"
    )
    """Without effect: records always come in micro-batches. `BATCH` is `scan.startup.mode: snapshot` of the source."""
    rpc_timeout: Duration | None = Field(None, alias="schema-operator.rpc-timeout")
    """Without effect: there is no schema operator to wait for."""
    operator_uid: str | None = Field(None, alias="schema.operator.uid")
    """Without effect: there are no operators."""
    uid_prefix: str | None = Field(None, alias="operator.uid.prefix")
    """Without effect: there are no operators."""
    flink_conf: dict[str, str] | None = Field(None, alias="flink-conf")
    """Without effect: there is no Flink cluster."""

    @field_validator("time_zone")
    @classmethod
    def _is_utc(cls, text: str) -> str:
        if text.upper() not in _UTC:
            raise ValueError("only UTC is supported, so that a replay means the same on every machine")
        return text


class CaptureForm(Options):
    """What `source:` says whatever its type: which tables are read, and whether their columns are followed."""

    name: str | None = None
    """Name of the source, for people."""
    tables: str
    exclude: str | None = Field(None, alias="tables.exclude")
    metadata: str | None = Field(None, alias="metadata.list")

    _is_patterns = field_validator("tables", "exclude")(patterns)

    @property
    def follows(self) -> bool:
        """Columns may change."""
        return True

    @field_validator("metadata")
    @classmethod
    def _is_known(cls, text: str | None) -> str | None:
        for name in names_of(text):
            if name not in METADATA_NAMES:
                raise ValueError(f"unknown metadata {name!r}; known: {', '.join(METADATA_NAMES)}")
        return text

    def wants(self, database: str, table: str) -> bool:
        """True of a table that is read."""
        is_excluded = self.exclude is not None and TablePatterns(self.exclude).matches(database, table)
        return not is_excluded and TablePatterns(self.tables).matches(database, table)


class MySqlCaptureOptions(CaptureForm):
    """What `source:` of type `mysql` may say, beside the options of connector `mysql-cdc` but `database-name`,
    `table-name` and `connector`."""

    idle: ClassVar[Mapping[str, str]] = {
        "scan.newly-added-table.enabled": "new tables are always found, and read from their first row",
        "scan.binlog.newly-added-table.enabled": "new tables are always found, and read from their first row",
        "include-comments.enabled": "comments are always taken along, to the asset",
    }

    type: Literal["mysql"]
    """`mysql`."""
    name: str | None = None
    """Name of the source, for people."""
    tables: str
    r"""Tables that are read: `database.table`, each a regular expression; several separated by commas. A dot of an
    expression is written `\.`, so `shop.\.*` is every table of `shop`."""
    exclude: str | None = Field(None, alias="tables.exclude")
    """Tables that are not, spelled the same way."""
    follows_ddl: Flag = Field(default=True, alias="schema-change.enabled")
    """`false`: columns never change, as with `schema.change.behavior: ignore`."""
    metadata: str | None = Field(None, alias="metadata.list")
    """Metadata that expressions may use, separated by commas: `op_ts`."""
    boolean_tinyint: Flag = Field(default=True, alias="treat-tinyint1-as-boolean.enabled")
    """TINYINT(1) is BOOLEAN; `false` is not built."""
    newly_added: Flag | None = Field(None, alias="scan.newly-added-table.enabled")
    """Without effect: new tables are always found."""
    binlog_newly_added: Flag | None = Field(None, alias="scan.binlog.newly-added-table.enabled")
    """Without effect: new tables are always found."""
    comments: Flag | None = Field(None, alias="include-comments.enabled")
    """Without effect: comments are always taken along."""

    @field_validator("boolean_tinyint")
    @classmethod
    def _is_boolean(cls, flag: bool) -> bool:  # noqa: FBT001
        if not flag:
            raise ValueError("TINYINT(1) is always BOOLEAN here; make the column TINYINT(2) where it holds numbers")
        return flag

    @property
    def follows(self) -> bool:
        """Columns may change."""
        return self.follows_ddl
