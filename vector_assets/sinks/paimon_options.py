"""Options of the Paimon sink, by the names of Paimon's Flink connector and of its catalogs."""

from typing import Any, ClassVar, Literal, Self
from urllib.parse import urlparse

from pydantic import Field, SecretStr, field_validator, model_validator

from vector_assets.clients.paimon import OSS_SCHEMES, S3_SCHEMES, SCHEMES, Login, Storage
from vector_assets.engine.core import WireLimits
from vector_assets.engine.options import Flag, MemorySize, SinkOptions
from vector_assets.engine.retry import RetryPolicy


class PaimonOptions(SinkOptions):
    """What a sink table of connector `paimon` may say."""

    idle: ClassVar[dict[str, str]] = {
        "sink.parallelism": "a pipeline has one committer",
        "write-only": "the sink never compacts while it writes: `vector-assets maintain` does",
    }

    connector: Literal["paimon"] = Field("paimon", alias="connector")
    """`paimon`."""
    table_path: str | None = Field(None, alias="path")
    """Folder of the table: a local path, `file:`, `s3://` or `oss://`. The folder above it must exist. Instead of the
    next three."""
    warehouse: str | None = Field(None, alias="warehouse")
    """Folder of the catalog; the table lies in `<warehouse>/<catalog-database>.db/<catalog-table>`."""
    database: str | None = Field(None, alias="catalog-database", pattern=r"^[^/\s.]+$")
    """Name of the database; its folder `<name>.db` must exist: a database is never made by itself."""
    table_name: str | None = Field(None, alias="catalog-table", pattern=r"^[^/\s$]+$")
    """Name of the table."""
    metastore: Literal["filesystem"] = Field("filesystem", alias="metastore")
    """Where tables are registered: `filesystem`, which is in the folders themselves; no other is supported."""
    auto_create: Flag = Field(default=True, alias="auto-create")
    """Make the table when it is missing, from the declared columns and key."""
    on_existing: Literal["adopt", "fail"] = Field("adopt", alias="on_existing")
    """A table that is there and was not made by this pipeline: `adopt` writes it when it fits, `fail` refuses it."""
    bucket: int = Field(-1, alias="bucket", ge=-1)
    """Buckets of a partition. -1: none in an append table, as many as needed in one with a primary key. (-2, postponed
    buckets, is refused: nothing could read them before a Java compaction.)"""
    bucket_key: str | None = Field(None, alias="bucket-key")
    """Columns that choose the bucket, separated by commas; the primary key unless set. An append table with buckets
    needs it."""
    partition: str | None = Field(None, alias="partition")
    """Partition columns, separated by commas; of a table with a primary key they belong to the key. (As in Paimon,
    instead of PARTITIONED BY.)"""
    batch_column: str | None = Field(None, alias="batch_column", pattern=r"^[^\s.]+$")
    """Column of a table without a primary key, BIGINT and made where it is missing, that takes beside each row the
    number of the batch whose records it was made of: `replay --rewrite` can then replace a batch's rows."""
    file_format: Literal["parquet", "orc"] = Field("parquet", alias="file.format")
    """Format of data files."""
    compression: Literal["zstd", "lz4", "snappy", "gzip", "none"] = Field("zstd", alias="file.compression")
    """Compression of data files."""
    stats_mode: Literal["full", "none"] = Field("full", alias="metadata.stats-mode")
    """Statistics of columns in manifests: `full`; with `none`, Spark's filtered queries fail."""
    merge_engine: Literal["deduplicate"] = Field("deduplicate", alias="merge-engine")
    """What becomes of several rows of one key: the last one stays. (`first-row` tables written without Java read as
    empty; `partial-update` and `aggregation` are not supported.)"""
    target_file_size: MemorySize | None = Field(None, alias="target-file-size", ge=1024**2)
    """Size at which a new data file is begun; Paimon's own default unless set."""
    parallelism: int | None = Field(None, alias="sink.parallelism", ge=1)
    """Checked, without effect: a pipeline has one committer."""
    write_only: Flag | None = Field(None, alias="write-only")
    """Checked, without effect: the sink never compacts while it writes."""
    s3_endpoint: str | None = Field(None, alias="s3.endpoint")
    """S3: address of the store, Amazon's unless set."""
    s3_access_key: SecretStr | None = Field(None, alias="s3.access-key")
    """S3: access key."""
    s3_secret_key: SecretStr | None = Field(None, alias="s3.secret-key")
    """S3: secret key."""
    s3_session_token: SecretStr | None = Field(None, alias="s3.session-token")
    """S3: token of temporary credentials."""
    s3_region: str | None = Field(None, alias="s3.region")
    """S3: region."""
    s3_path_style: Flag = Field(default=False, alias="s3.path.style.access")
    """S3: the bucket is in the path, not in the host's name."""
    oss_endpoint: str | None = Field(None, alias="fs.oss.endpoint")
    """OSS: address of the store."""
    oss_access_key: SecretStr | None = Field(None, alias="fs.oss.accessKeyId")
    """OSS: access key id."""
    oss_secret_key: SecretStr | None = Field(None, alias="fs.oss.accessKeySecret")
    """OSS: access key secret."""
    oss_token: SecretStr | None = Field(None, alias="fs.oss.securityToken")
    """OSS: token of temporary credentials."""
    oss_region: str | None = Field(None, alias="fs.oss.region")
    """OSS: region."""

    @field_validator("table_path", "warehouse")
    @classmethod
    def _is_location(cls, text: str | None) -> str | None:
        if text is None:
            return None
        parsed = urlparse(text)
        if (parsed.scheme or "file") not in SCHEMES:
            raise ValueError(f"want a local path or one of {', '.join(f'{scheme}:' for scheme in SCHEMES)}")
        if parsed.username or parsed.password:
            raise ValueError("credentials do not belong into a path: use the options of the store")
        if not parsed.path.strip("/") and not (parsed.scheme and parsed.netloc):
            raise ValueError("names no folder")
        return text

    @field_validator("bucket", mode="before")
    @classmethod
    def _is_written_at_once(cls, text: Any) -> Any:
        if str(text) == "-2":
            raise ValueError("postponed buckets are refused: they read as empty until a Java engine compacts them")
        return text

    @field_validator("merge_engine", mode="before")
    @classmethod
    def _is_readable(cls, text: Any) -> Any:
        if text != "deduplicate":
            raise ValueError("want deduplicate: other merge engines are not supported (first-row tables read as empty)")
        return text

    @model_validator(mode="after")
    def _is_one_place(self) -> Self:
        parts = {"warehouse": self.warehouse, "catalog-database": self.database, "catalog-table": self.table_name}
        given = [name for name, value in parts.items() if value is not None]
        if self.table_path is not None and given:
            raise ValueError(f"'path' names the table already: leave out {', '.join(map(repr, given))}")
        missing = [repr(name) for name in parts if name not in given]
        if self.table_path is None and missing:
            raise ValueError(
                f"want 'path', or 'warehouse', 'catalog-database' and 'catalog-table': without {missing[0]}"
            )
        return self

    @property
    def location(self) -> str:
        """Folder of the table."""
        if self.table_path is not None:
            return self.table_path.rstrip("/")
        return f"{str(self.warehouse).rstrip('/')}/{self.database}.db/{self.table_name}"

    @property
    def folder(self) -> str:
        """The same: nobody else's files may lie in it."""
        return self.location

    @property
    def storage(self) -> Storage:
        """The folder and how to reach it."""
        scheme = urlparse(self.location).scheme
        if scheme in OSS_SCHEMES:
            keys = (self.oss_access_key, self.oss_secret_key, self.oss_token)
            endpoint, region, path_style = self.oss_endpoint, self.oss_region, False
        elif scheme in S3_SCHEMES:
            keys = (self.s3_access_key, self.s3_secret_key, self.s3_session_token)
            endpoint, region, path_style = self.s3_endpoint, self.s3_region, self.s3_path_style
        else:
            return Storage(self.location)
        access, secret, token = (key.get_secret_value() if key else None for key in keys)
        return Storage(self.location, Login(endpoint, access, secret, token, region, path_style))

    @property
    def partition_columns(self) -> tuple[str, ...]:
        """Partition columns by the option."""
        return columns_of(self.partition)

    @property
    def bucket_columns(self) -> tuple[str, ...]:
        """Columns that choose the bucket, by the option."""
        return columns_of(self.bucket_key)

    @property
    def wire(self) -> WireLimits:
        """Paimon has no requests inside a batch: a batch is one commit."""
        return WireLimits(flush_rows=1_000_000, linger_seconds=60.0)

    @property
    def retry(self) -> RetryPolicy:
        """Attempts for a batch whose commit fails for a passing reason."""
        return RetryPolicy(retries=5, wait_seconds=0.2)

    def target(self) -> str:
        """`paimon:` and the folder of the table."""
        return f"paimon:{self.location}"


def columns_of(text: str | None) -> tuple[str, ...]:
    """Names separated by commas."""
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())
