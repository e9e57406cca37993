"""Options of the Milvus sink, by the names and defaults of its Flink connector."""

from datetime import timedelta
from typing import Self

from pydantic import Field, SecretStr, field_validator, model_validator

from vector_assets.clients.milvus import DEFAULT_PORT, Login
from vector_assets.engine.core import WireLimits
from vector_assets.engine.options import Duration, SinkOptions
from vector_assets.engine.retry import RetryPolicy

METRICS = {
    "FloatVector": ("L2", "IP", "COSINE"),
    "BinaryVector": ("HAMMING", "JACCARD"),
    "SparseFloatVector": ("IP",),
}
"""Metrics that `vector.metrics` may name for a type of vector; the first is the default."""


class MilvusOptions(SinkOptions):
    """What a sink table of connector `milvus` may say."""

    connector: str = Field("milvus", alias="connector", pattern="^milvus$")
    """`milvus`."""
    endpoint: str | None = Field(None, alias="endpoint", min_length=1)
    """Host name or address of the server; required unless `uri` is given."""
    port: int = Field(DEFAULT_PORT, alias="port", ge=1, le=65535)
    """Port of the server."""
    uri: str | None = Field(None, alias="uri")
    """Instead of `endpoint` and `port`: `http://host[:port]`, or `https://host[:port]` for TLS (cloud services)."""
    user: str | None = Field(None, alias="userName", min_length=1)
    """User, if the server wants one; needs `password`."""
    password: SecretStr | None = Field(None, alias="password")
    """Password of the user."""
    token: SecretStr | None = Field(None, alias="token")
    """API key instead of `userName` and `password`."""
    database: str = Field("default", alias="databaseName", min_length=1)
    """Database of the collection."""
    collection: str = Field(alias="collectionName", pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,254}$")
    """The collection to write."""
    partition: str | None = Field(None, alias="partitionName", pattern=r"^[A-Za-z0-9_]{1,255}$")
    """Write into this partition, and delete in it only; default: the collection's default partition."""
    routes_by_key: bool = Field(default=False, alias="partitionKey.enabled")
    """`true`: the collection must have a partition key, whose value routes each row. Excludes `partitionName`."""
    flush_rows: int = Field(200, alias="sink.buffer-flush.max-rows", ge=1)
    """Rows per request to the server (a batch of the pipeline is as many requests as it takes)."""
    flush_interval: Duration = Field(timedelta(seconds=3), alias="sink.buffer-flush.interval", gt=timedelta(0))
    """Longest wait of a batch that is not full."""
    dimensions: str | None = Field(None, alias="vector.dimensions")
    """Dimensions of vector columns, `vec:3` or `vec:3,other:128`: checked against the collection before the first row,
    and needed by `vector-assets target create`."""
    metrics: str | None = Field(None, alias="vector.metrics")
    """For `vector-assets target create`: metrics of vector columns, `vec:COSINE`; default L2, HAMMING for binary and IP
    for sparse vectors."""
    partition_key_field: str | None = Field(None, alias="partitionKey.field")
    """For `vector-assets target create`, with `partitionKey.enabled`: the column to route by; an existing collection
    must route by it too."""

    @field_validator("uri")
    @classmethod
    def _is_address(cls, uri: str | None) -> str | None:
        if uri is not None:
            Login.parse_uri(uri)
        return uri

    @field_validator("endpoint")
    @classmethod
    def _is_host(cls, endpoint: str | None) -> str | None:
        if endpoint and (not set("/@ ").isdisjoint(endpoint) or endpoint.count(":") == 1):
            raise ValueError("want a host name or an address; the port goes into 'port', a whole URL into 'uri'")
        return endpoint

    @field_validator("dimensions")
    @classmethod
    def _are_dimensions(cls, text: str | None) -> str | None:
        for column, number in _by_column(text, "vec:128").items():
            if not number.isdigit() or int(number) < 1:
                raise ValueError(
                    f"the dimension of {column} is no number from 1 up; want column:dimension, as 'vec:128'"
                )
        return text

    @field_validator("metrics")
    @classmethod
    def _are_metrics(cls, text: str | None) -> str | None:
        known = {metric for metrics in METRICS.values() for metric in metrics}
        for column, metric in _by_column(text, "vec:COSINE").items():
            if metric not in known:
                raise ValueError(f"the metric of {column} is unknown; known metrics: {', '.join(sorted(known))}")
        return text

    @model_validator(mode="after")
    def _has_no_contradiction(self) -> Self:
        if self.endpoint is None and self.uri is None:
            raise ValueError("option 'endpoint' is required (or 'uri')")
        if self.uri is not None and (self.endpoint is not None or "port" in self.model_fields_set):
            raise ValueError("'uri' says host and port: leave out 'endpoint' and 'port'")
        if (self.user is None) != (self.password is None):
            raise ValueError("'userName' and 'password' go together: give both or none")
        if self.token is not None and self.user is not None:
            raise ValueError("'token' is instead of 'userName' and 'password': give one or the other")
        if self.partition is not None and self.routes_by_key:
            raise ValueError(
                "'partitionName' names one partition and 'partitionKey.enabled' = 'true' routes each row to its own:"
                " give one or the other"
            )
        if self.partition_key_field is not None and not self.routes_by_key:
            raise ValueError("'partitionKey.field' needs 'partitionKey.enabled' = 'true'")
        return self

    @property
    def login(self) -> Login:
        """Address and credentials."""
        host, port, secure = Login.parse_uri(self.uri) if self.uri else (self.endpoint or "", self.port, False)
        return Login(host, port, secure, self.database, self.user, self.password, self.token)

    @property
    def wire(self) -> WireLimits:
        """Rows per request and the longest wait of a batch that is not full."""
        return WireLimits(flush_rows=self.flush_rows, linger_seconds=self.flush_interval.total_seconds())

    @property
    def retry(self) -> RetryPolicy:
        """Attempts for a batch whose write fails; the connector has no options for them."""
        return RetryPolicy()

    @property
    def declared_dimensions(self) -> dict[str, int]:
        """Dimension by column, as the option says."""
        return {column: int(number) for column, number in _by_column(self.dimensions, "").items()}

    @property
    def declared_metrics(self) -> dict[str, str]:
        """Metric by column, as the option says."""
        return _by_column(self.metrics, "")

    @property
    def place(self) -> str:
        """What the sink writes, inside its database: the collection, and the partition if it is a fixed one."""
        return f"{self.collection}/{self.partition}" if self.partition else self.collection

    def target(self) -> str:
        """`milvus://host:port/database/collection[/partition]`."""
        return f"milvus://{self.login.address}/{self.database}/{self.place}"


def _by_column(text: str | None, example: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in (text or "").split(",") if text is not None else ():
        column, _, value = part.strip().rpartition(":")
        if not column or not value or column in found:
            raise ValueError(f"want a value for each column, separated by commas, such as '{example}'")
        found[column] = value
    return found
