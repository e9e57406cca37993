"""Options of the OpenSearch sink, by the names and defaults of its Flink connector."""

from collections.abc import Mapping
from datetime import timedelta
from typing import ClassVar, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from vector_assets.clients.opensearch import Login
from vector_assets.engine.core import WireLimits
from vector_assets.engine.options import Duration, Flag, MemorySize, SinkOptions
from vector_assets.engine.retry import RetryPolicy
from vector_assets.sinks.opensearch_names import Pattern, check_name

_LATER = "a batch is written whole, or made again"


class OpenSearchOptions(SinkOptions):
    """What a sink table of connector `opensearch-2` may say."""

    idle: ClassVar[Mapping[str, str]] = {
        "is_flushed": _LATER,
        "guarantee": f"{_LATER}: effectively once always",
        "retry_timeout": "attempts are counted by sink.bulk-flush.backoff.max-retries",
        "connect_timeout": "connection.request-timeout covers it",
        "socket_timeout": "connection.request-timeout covers it",
    }

    connector: str = Field("opensearch-2", alias="connector", pattern="^opensearch(-2)?$")
    """`opensearch-2` (or `opensearch`)."""
    hosts: str = Field(alias="hosts")
    """`http(s)://host:port`, several separated by `;`."""
    index: str = Field(alias="index", min_length=1)
    """The index; an alias (of several indices, one of them its write index); a data stream; or a name made from columns
    of a row, such as `visits-{site}`, of a DATE or TIMESTAMP by a pattern behind a bar."""
    username: str | None = Field(None, alias="username", min_length=1)
    """User, if the server wants one; needs `password`."""
    password: SecretStr | None = Field(None, alias="password")
    """Password of the user."""
    is_insecure: Flag = Field(default=False, alias="allow-insecure")
    """`true`: take any certificate of an `https` host."""
    ca_file: str | None = Field(None, alias="connection.ca-file")
    """File with the certificates to trust instead of the system's; not in Flink's connector."""
    delimiter: str = Field("_", alias="document-id.key-delimiter")
    """Between the columns of a key in the document's `_id`."""
    failure_handler: Literal["fail", "ignore", "retry-rejected"] = Field("fail", alias="failure-handler")
    """What Flink does with refused documents. Here they are dead letters whatever it says, within the error budget of
    the pipeline, and requests that a busy server rejects are sent again."""
    is_flushed: Flag = Field(default=True, alias="sink.flush-on-checkpoint")
    """No effect: a batch is written whole, or made again."""
    guarantee: Literal["at-least-once", "none"] = Field("at-least-once", alias="sink.delivery-guarantee")
    """No effect: effectively once always."""
    most_actions: int = Field(1000, alias="sink.bulk-flush.max-actions", ge=-1)
    """Documents per bulk request; `0` or `-1`: as many as the size allows."""
    most_bytes: MemorySize = Field(2 << 20, alias="sink.bulk-flush.max-size")
    """Bytes per bulk request; `0`: 32 MB."""
    flush_interval: Duration = Field(timedelta(seconds=1), alias="sink.bulk-flush.interval")
    """Longest wait of a batch that is not full; `0`: the pipeline's own."""
    backoff: Literal["DISABLED", "CONSTANT", "EXPONENTIAL"] = Field(
        "DISABLED", alias="sink.bulk-flush.backoff.strategy"
    )
    """How pauses grow between attempts for documents that a busy server rejects; `DISABLED` is `EXPONENTIAL` here."""
    most_retries: int = Field(8, alias="sink.bulk-flush.backoff.max-retries", ge=0)
    """Attempts after the first for such documents; then the batch fails and is made again."""
    backoff_delay: Duration = Field(timedelta(milliseconds=50), alias="sink.bulk-flush.backoff.delay")
    """The first pause."""
    path_prefix: str = Field("", alias="connection.path-prefix")
    """Goes before the path of every request."""
    request_timeout: Duration = Field(timedelta(seconds=60), alias="connection.request-timeout", gt=timedelta(0))
    """Longest wait for an answer."""
    retry_timeout: Duration | None = Field(None, alias="connection.max-retry-timeout")
    """No effect: attempts are counted."""
    connect_timeout: Duration | None = Field(None, alias="connection.timeout")
    """No effect: `connection.request-timeout` covers it."""
    socket_timeout: Duration | None = Field(None, alias="socket.timeout")
    """No effect: `connection.request-timeout` covers it."""
    format: Literal["json"] = Field("json", alias="format")
    """`json`."""
    refresh: Literal["true", "wait_for", "false"] = Field("true", alias="sink.refresh")
    """When documents can be found: `true` once per batch, before it counts as done; `wait_for` at the index's own next
    refresh, which the batch waits for; `false` some time later. Not in Flink's connector."""
    gc_deletes: Duration = Field(timedelta(hours=1), alias="sink.gc-deletes", ge=timedelta(minutes=1))
    """How long the index is to remember the version of deleted documents (`index.gc_deletes`); a shorter setting of the
    index is raised to it. Not in Flink's connector."""
    dimensions: str | None = Field(None, alias="vector.dimensions")
    """For `vector-assets target create`: dimensions of vector columns, `vec:3` or `vec:3,other:128`."""

    @field_validator("hosts")
    @classmethod
    def _are_hosts(cls, text: str) -> str:
        for each in text.split(";"):
            Login.parse_host(each)
        return text

    @field_validator("index")
    @classmethod
    def _is_name(cls, name: str) -> str:
        return name if Pattern.parse(name) is not None else check_name(name)

    @field_validator("dimensions")
    @classmethod
    def _are_dimensions(cls, text: str | None) -> str | None:
        for part in text.split(",") if text else ():
            column, _, number = part.strip().rpartition(":")
            if not column or not number.isdigit() or int(number) < 1:
                raise ValueError("want column:dimension for each, separated by commas, as 'vec:128'")
        return text

    @model_validator(mode="after")
    def _has_no_contradiction(self) -> Self:
        if (self.username is None) != (self.password is None):
            raise ValueError("'username' and 'password' go together: give both or none")
        if self.is_insecure and self.ca_file:
            raise ValueError("'allow-insecure' takes any certificate: leave out 'connection.ca-file'")
        return self

    @property
    def login(self) -> Login:
        """Address and credentials."""
        hosts = tuple(Login.parse_host(each) for each in self.hosts.split(";"))
        timeout_s = self.request_timeout.total_seconds()
        verifies = not self.is_insecure
        return Login(hosts, self.username, self.password, self.path_prefix, verifies, self.ca_file, timeout_s)

    @property
    def wire(self) -> WireLimits:
        """Documents per request and the longest wait of a batch that is not full."""
        linger_s = self.flush_interval.total_seconds() or 1.0
        return WireLimits(flush_rows=max(self.most_actions, 1), linger_seconds=linger_s)

    @property
    def retry(self) -> RetryPolicy:
        """Attempts for a batch whose write fails."""
        return RetryPolicy()

    @property
    def declared_dimensions(self) -> dict[str, int]:
        """Dimension by column, as the option says."""
        pairs = (part.strip().rpartition(":") for part in self.dimensions.split(",")) if self.dimensions else ()
        return {column: int(number) for column, _, number in pairs}

    @property
    def address(self) -> str:
        """What searches and refreshes go to: the index, or what finds every index of a pattern."""
        pattern = Pattern.parse(self.index)
        return self.index if pattern is None else pattern.wildcard

    def target(self) -> str:
        """`opensearch://host:port/index`."""
        first = self.login.hosts[0].partition("//")[2]
        return f"opensearch://{first}/{self.index}"
