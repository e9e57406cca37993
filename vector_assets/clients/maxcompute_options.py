"""Options that every table of connector `odps` shares, and the login they make."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, field_validator

from vector_assets.engine.options import Options
from vector_assets.engine.retry import RetryPolicy

Codec = Literal["RAW", "ZLIB", "SNAPPY"]


@dataclass(frozen=True, slots=True)
class Login:
    """Where a project is and how to enter.

    `tunnel_endpoint` wins over `quota`, as the service's own connector has it; without both the service names a tunnel.
    `schema` is set for projects of three tiers only.
    """

    endpoint: str
    project: str
    access_id: str
    access_key: SecretStr
    schema: str | None = None
    tunnel_endpoint: str | None = None
    quota: str | None = None
    sts_token: SecretStr | None = None

    def full_name(self, table: str) -> str:
        """`project.table`, or `project.schema.table`."""
        return ".".join(part for part in (self.project, self.schema, table) if part)


def upper(text: Any) -> Any:
    """A name of a choice in any case."""
    return text.upper() if isinstance(text, str) else text


def check_endpoint(address: str) -> str:
    """The address without a slash at its end.

    Raises:
        ValueError: it is none, or holds credentials, which are not repeated.
    """
    parts = urlsplit(address.strip())
    if "@" in parts.netloc:
        raise ValueError("it holds credentials: leave them out, the options accessId and accessKey take them")
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("want http://host[:port][/path] or https://host[:port][/path]")
    return address.strip().rstrip("/")


class MaxComputeOptions(Options):
    """What a source, dimension or sink table of connector `odps` may say."""

    connector: Literal["odps"]
    """`odps`."""
    endpoint: str
    """Address of the MaxCompute service."""
    tunnel_endpoint: str | None = Field(None, alias="tunnelEndpoint")
    """Address of the tunnel; by default the service names one."""
    project: str = Field(min_length=1)
    """Project of the table."""
    schema_name: str | None = Field(None, alias="schemaName", min_length=1)
    """Schema of the table, in projects of three tiers."""
    table_name: str = Field(alias="tableName", min_length=1)
    """The table."""
    access_id: str = Field(alias="accessId", min_length=1)
    """AccessKey ID."""
    access_key: SecretStr = Field(alias="accessKey", min_length=1)
    """AccessKey secret."""
    partition: str | None = Field(None, min_length=1)
    """Partition: `ds=20180905`; what else it may say depends on the table's role."""
    compress_algorithm: Annotated[Codec, BeforeValidator(upper)] = Field("SNAPPY", alias="compressAlgorithm")
    """Codec of the tunnel: RAW, ZLIB or SNAPPY."""
    quota_name: str | None = Field(None, alias="quotaName", min_length=1)
    """Quota of the tunnel; tunnelEndpoint wins where both are given."""
    retry_times: int = Field(3, alias="retryTimes", ge=0)
    """Retries of a request that the service refuses for now (429, 308, 5xx) or that is cut."""
    sleep_millis: int = Field(1000, alias="sleepMillis", ge=0)
    """Pause before a retry in milliseconds."""

    @field_validator("endpoint", "tunnel_endpoint")
    @classmethod
    def _is_address(cls, address: str | None) -> str | None:
        return None if address is None else check_endpoint(address)

    def reports(self) -> tuple[str, ...]:
        """What is superseded, beside the options without effect."""
        superseded: tuple[str, ...] = ()
        if self.quota_name and self.tunnel_endpoint:
            superseded = ("option 'quotaName' has no effect: tunnelEndpoint is given and takes precedence",)
        return (*super().reports(), *superseded)

    @property
    def login(self) -> Login:
        """Where the project is and how to enter."""
        return Login(
            endpoint=self.endpoint,
            project=self.project,
            access_id=self.access_id,
            access_key=self.access_key,
            schema=self.schema_name,
            tunnel_endpoint=self.tunnel_endpoint,
            quota=self.quota_name,
        )

    @property
    def retry(self) -> RetryPolicy:
        """The policy of single requests; who does not answer at all is left to the run's own policy."""
        return RetryPolicy(self.retry_times, self.sleep_millis / 1000, outage_seconds=0.0)

    @property
    def full_name(self) -> str:
        """`project.table`, or `project.schema.table`."""
        return self.login.full_name(self.table_name)
