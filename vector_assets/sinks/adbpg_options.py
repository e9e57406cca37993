"""Options of the AnalyticDB for PostgreSQL sink, by the names and defaults of its Flink connector."""

import re
from collections.abc import Mapping
from enum import IntEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, SecretStr, field_validator, model_validator

from vector_assets.clients.postgres import Address, Login
from vector_assets.engine.core import Merge, WireLimits
from vector_assets.engine.options import SinkOptions
from vector_assets.engine.retry import RetryPolicy


class WriteMode(IntEnum):
    """How rows reach the table, by the connector's numbers."""

    INSERT = 0
    COPY = 1
    UPSERT = 2


def _write_mode(value: object) -> object:
    known = {str(mode.value): mode for mode in WriteMode}
    if str(value) not in known:
        raise ValueError("want 0 (multi-row INSERT), 1 (COPY) or 2 (upsert)")
    return known[str(value)]


def _switch(value: object) -> object:
    if str(value) not in {"0", "1"}:
        raise ValueError("want 0 (names match in any case) or 1 (names match exactly)")
    return int(str(value))


ConflictMode = Literal["ignore", "strict", "update", "upsert"]
ExceptionMode = Literal["ignore", "strict"]

_MERGES: dict[ConflictMode, Merge] = {
    "ignore": Merge.FIRST,
    "strict": Merge.ERROR,
    "update": Merge.LAST,
    "upsert": Merge.LAST,
}


class AdbPgOptions(SinkOptions):
    """What a sink table of connector `adbpg*` may say."""

    connector: str = Field("adbpg", alias="connector", pattern="^adbpg")
    """`adbpg`, or any version of the connector such as `adbpg-nightly-1.13`."""
    url: str = Field(alias="url")
    """`jdbc:postgresql://host[:port]/database` (`postgresql://` too); sslmode, sslrootcert, sslcert and sslkey may
    follow after `?`, with libpq's meaning."""
    table: str = Field(alias="tablename", min_length=1)
    """Name of the target table."""
    schema_name: str = Field("public", alias="targetschema", min_length=1)
    """Schema of the target table."""
    username: str = Field(alias="username", min_length=1)
    """Database user."""
    password: SecretStr = Field(alias="password")
    """Password of the database user."""
    batch_size: int = Field(3000, alias="batchsize", ge=1)
    """Rows per flush: of one piece of the COPY stream, or of one INSERT statement."""
    batch_write_timeout_ms: int = Field(10_000, alias="batchwritetimeoutms", ge=0)
    """Longest wait, in milliseconds, of a batch that is not full."""
    max_connections: int = Field(20, alias="connectionmaxactive", ge=1, le=1000)
    """Most connections that one process opens for this table; a pipeline writes through one."""
    max_retries: int = Field(2, alias="maxretrytimes", ge=0)
    """Attempts after the first when a write fails for a passing reason."""
    retry_wait_ms: int = Field(200, alias="retrywaittime", ge=0)
    """Wait between attempts, in milliseconds."""
    write_mode: Annotated[WriteMode, BeforeValidator(_write_mode)] = Field(WriteMode.COPY, alias="writemode")
    """0: multi-row INSERT statements; 1: binary COPY; 2: INSERT .. ON CONFLICT DO UPDATE."""
    conflict_mode: ConflictMode = Field("ignore", alias="conflictmode")
    """A row whose key exists: `ignore` keeps the first row, `strict` stops the batch, `update` writes inserts first and
    updates what conflicts, `upsert` always writes INSERT .. ON CONFLICT DO UPDATE."""
    exception_mode: ExceptionMode = Field("ignore", alias="exceptionmode")
    """Any other row the database refuses: `ignore` makes it a dead letter, `strict` stops the batch."""
    case_sensitive: Annotated[int, BeforeValidator(_switch)] = Field(0, alias="casesensitive")
    """1: table and column names match exactly; 0: in any case."""
    dimensions: str | None = Field(None, alias="vector.dimensions")
    """Dimensions of vector columns whose index and type do not tell: `feature:10` or `feature:10,other:128`."""

    @field_validator("url")
    @classmethod
    def _is_address(cls, url: str) -> str:
        Address.parse(url)
        return url

    @field_validator("dimensions")
    @classmethod
    def _are_dimensions(cls, text: str | None) -> str | None:
        if text is not None:
            _dimensions(text)
        return text

    @model_validator(mode="before")
    @classmethod
    def _upserts_unless_told_otherwise(cls, values: Any) -> Any:
        if str(values.get("writemode")) == "2" and "conflictmode" not in values:
            return {**values, "conflictmode": "upsert"}
        return values

    @model_validator(mode="after")
    def _has_no_contradiction(self) -> Self:
        if self.write_mode is WriteMode.UPSERT and self.merge is not Merge.LAST:
            raise ValueError(
                f"'writemode' = '2' updates rows whose key exists, 'conflictmode' = '{self.conflict_mode}' forbids it: "
                "use 'writemode' = '0' or '1', or 'conflictmode' = 'update' or 'upsert'"
            )
        return self

    @classmethod
    def _explain(cls, name: str, first: Any, raw: Mapping[str, str]) -> str:
        return super()._explain(name, first, {**raw, "url": _without_credentials(raw.get("url", ""))})

    @property
    def merge(self) -> Merge:
        """What several rows of one key come to."""
        return _MERGES[self.conflict_mode]

    @property
    def is_case_sensitive(self) -> bool:
        """True when names must match exactly."""
        return self.case_sensitive == 1

    @property
    def address(self) -> Address:
        """Where the database is."""
        return Address.parse(self.url)

    @property
    def login(self) -> Login:
        """Address and credentials."""
        return Login(self.address, self.username, self.password)

    @property
    def wire(self) -> WireLimits:
        """Rows per flush and the longest wait of a batch that is not full."""
        return WireLimits(flush_rows=self.batch_size, linger_seconds=self.batch_write_timeout_ms / 1000)

    @property
    def retry(self) -> RetryPolicy:
        """Attempts for a batch whose write fails."""
        return RetryPolicy(retries=self.max_retries, wait_seconds=self.retry_wait_ms / 1000)

    @property
    def declared_dimensions(self) -> dict[str, int]:
        """Dimension by column, as the option says."""
        return _dimensions(self.dimensions) if self.dimensions else {}

    def refusal_of_changes(self) -> tuple[str, str] | None:
        """Only conflict modes that write the last row of a key can take anything but inserts."""
        if self.merge is Merge.LAST:
            return None
        return "conflictmode", (
            f"'conflictmode' = '{self.conflict_mode}' takes inserts only; set 'conflictmode' to 'update' or 'upsert'"
        )

    def target(self) -> str:
        """`adbpg://host:port/database/schema.table`; in lower case where case does not count."""
        name = f"{self.schema_name}.{self.table}"
        return f"adbpg://{self.address}/{name if self.is_case_sensitive else name.lower()}"


def _without_credentials(url: str) -> str:
    """The URL as a message may show it."""
    return re.sub(r"([?&](?:user|\w*password))=[^&]*", r"\1=***", re.sub(r"//.*@", "//***@", url), flags=re.IGNORECASE)


def _dimensions(text: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for part in text.split(","):
        column, _, number = part.strip().rpartition(":")
        if not column or not number.isdigit() or int(number) < 1 or column in found:
            raise ValueError("want column:dimension, separated by commas, such as 'feature:10'")
        found[column] = int(number)
    return found
