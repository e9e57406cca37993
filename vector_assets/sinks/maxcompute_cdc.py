"""Options of sink `maxcompute` of Flink CDC pipelines: one set for all tables, and those of the sink of each table."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SecretStr, field_validator

from vector_assets.clients.maxcompute_options import Codec, Login, check_endpoint, upper
from vector_assets.engine.options import MemorySize, Options
from vector_assets.engine.schema import LogicalType
from vector_assets.sinks.maxcompute_options import MaxComputeSinkOptions

BUCKET_OPTIONS = ("buckets-num", "bucket.buffer-size", "flush.concurrent-num")
"""What only Delta tables have: without effect for a table that has no primary key."""
_STRINGS = frozenset({"CHAR", "VARCHAR", "TIME"})
_NTZ_PRECISION = 6
"""Digits of every TIMESTAMP: with 3 or fewer the type of a column would be DATETIME; MySQL has 6 at most."""


class MaxComputeTableOptions(MaxComputeSinkOptions):
    """What a CDC pipeline says of the sink of one table, which is made when it is missing."""

    sts_token: SecretStr | None = Field(None, alias="sts-token", min_length=1)
    """Security token of a role, beside the AccessKey that belongs to it."""

    @property
    def login(self) -> Login:
        """Where the project is and how to enter."""
        plain = super().login
        return Login(
            plain.endpoint, plain.project, plain.access_id, plain.access_key, plain.schema, plain.tunnel_endpoint,
            plain.quota, self.sts_token,
        )  # fmt: skip

    @property
    def makes_table(self) -> bool:
        """Always: the first run makes the table."""
        return True

    @property
    def keeps_buckets(self) -> bool:
        """A table that is there keeps its number of buckets, whatever `buckets-num` says of new ones."""
        return True


class MaxComputeCdcOptions(Options):
    """What `sink:` of type `maxcompute` may say in a Flink CDC pipeline."""

    type: Literal["maxcompute"]
    """`maxcompute`."""
    name: str | None = None
    """Name of the sink, for people."""
    access_id: str = Field(alias="access-id", min_length=1)
    """AccessKey ID."""
    access_key: SecretStr = Field(alias="access-key", min_length=1)
    """AccessKey secret."""
    endpoint: str
    """Address of the MaxCompute service."""
    project: str = Field(min_length=1)
    """The project; a database is a schema of it, unless its schemas are off."""
    tunnel_endpoint: str | None = Field(None, alias="tunnel.endpoint")
    """Address of the tunnel; by default the service names one."""
    quota_name: str | None = Field(None, alias="quota.name", min_length=1)
    """Quota of the tunnel; without it the shared one. tunnel.endpoint wins where both are given."""
    sts_token: SecretStr | None = Field(None, alias="sts-token", min_length=1)
    """Security token of a role, beside the AccessKey that belongs to it."""
    buckets: int = Field(16, alias="buckets-num", ge=1)
    """Buckets of the Delta tables that are made; a table that is there keeps its own number."""
    codec: Annotated[Codec, BeforeValidator(upper)] = Field("ZLIB", alias="compress.algorithm")
    """Codec of the tunnel: raw, zlib or snappy."""
    total_buffer: MemorySize = Field(64 << 20, alias="total.buffer-size", ge=1024)
    """Bytes of a partition's (or a table's) rows that are encoded at a time."""
    bucket_buffer: MemorySize = Field(4 << 20, alias="bucket.buffer-size", ge=1024)
    """Delta tables: bytes of a request with changes to a bucket, about."""
    commit_threads: int = Field(16, alias="commit.thread-num", ge=1)
    """Partitions that are committed at a time; every table is a pipeline of its own beside that."""
    flush_threads: int = Field(4, alias="flush.concurrent-num", ge=1)
    """Delta tables: buckets of a partition that are sent at a time."""

    @field_validator("endpoint", "tunnel_endpoint")
    @classmethod
    def _is_address(cls, address: str | None) -> str | None:
        return None if address is None else check_endpoint(address)

    def of_table(
        self, schema: str | None, table: str, *, is_keyed: bool, partition: tuple[str, ...] = ()
    ) -> MaxComputeTableOptions:
        """The options of one table's sink, in the words of connector `odps`."""
        given: Mapping[str, Any] = {
            "connector": "odps",
            "endpoint": self.endpoint,
            "project": self.project,
            "schemaName": schema,
            "tableName": table,
            "accessId": self.access_id,
            "accessKey": self.access_key,
            "sts-token": self.sts_token,
            "tunnelEndpoint": self.tunnel_endpoint,
            "quotaName": self.quota_name,
            "compressAlgorithm": self.codec,
            "partition": ",".join(partition) or None,
        }
        return MaxComputeTableOptions.model_validate(
            {name: value for name, value in given.items() if value is not None}
            | (self._of_delta_table() if is_keyed else self._of_plain_table())
        )

    def _of_delta_table(self) -> dict[str, Any]:
        return {
            "enableUpsert": "true",
            "upsert.write.bucket.num": self.buckets,
            "upsert.writer.buffer-size": str(self.total_buffer),
            "upsert.writer.bucket.buffer-size": str(self.bucket_buffer),
            "upsert.commit.thread-num": self.commit_threads,
            "upsert.flush.concurrent": self.flush_threads,
        }

    def _of_plain_table(self) -> dict[str, Any]:
        return {"insert.writer.buffer-size": str(self.total_buffer), "insert.commit.thread-num": self.commit_threads}

    def keyless_reports(self) -> tuple[str, ...]:
        """Options that are given and mean nothing to a table without a primary key."""
        fields = type(self).model_fields
        given = [fields[name].alias for name in self.model_fields_set]
        return tuple(
            f"option {name!r} has no effect: the table has no primary key, so it is no Delta table"
            for name in BUCKET_OPTIONS
            if name in given
        )

    @property
    def login(self) -> Login:
        """Where the project is and how to enter."""
        return self.of_table(None, "none", is_keyed=False).login


def stored_type(kind: LogicalType) -> LogicalType:
    """The type that a column of a table gets: CHAR, VARCHAR and TIME are STRING, TIMESTAMP is TIMESTAMP_NTZ,
    TIMESTAMP_LTZ is TIMESTAMP, or DATETIME with 3 digits or fewer. Nullable, unless it is of the key."""
    if kind.name in _STRINGS:
        return LogicalType("VARCHAR", nullable=kind.nullable)
    if kind.name == "TIMESTAMP":
        return LogicalType("TIMESTAMP", max(kind.precision or 0, _NTZ_PRECISION), nullable=kind.nullable)
    return kind
