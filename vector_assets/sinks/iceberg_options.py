"""Options of the Iceberg sink, as its Flink connector, Iceberg's table properties and pyiceberg spell them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import quote

from pydantic import Field, PrivateAttr, SecretStr, field_validator, model_validator

from vector_assets.clients.iceberg import CatalogLogin
from vector_assets.engine import env
from vector_assets.engine.core import Guarantee, Merge, WireLimits
from vector_assets.engine.options import Flag, MemorySize, SinkOptions
from vector_assets.engine.retry import RetryPolicy
from vector_assets.sinks.iceberg_partition import parse_partition

_IMPLEMENTATIONS = {
    "org.apache.iceberg.jdbc.JdbcCatalog": "sql",
    "org.apache.iceberg.rest.RESTCatalog": "rest",
    "org.apache.iceberg.aws.glue.GlueCatalog": "glue",
    "org.apache.iceberg.hive.HiveCatalog": "hive",
}
_KINDS = {"sql": "sql", "jdbc": "sql", "rest": "rest", "glue": "glue", "hive": "hive"}
_FLUSH_ROWS = 50_000
_LINGER_SECONDS = 3600.0

Secrets = dict[str, SecretStr]


class IcebergOptions(SinkOptions):
    """What a sink table of connector `iceberg` may say."""

    pass_through: ClassVar[tuple[str, ...]] = (
        "s3.", "oss.", "gcs.", "adls.", "hdfs.", "hf.", "client.", "glue.", "rest.", "hive.", "header.",
    )  # fmt: skip
    idle: ClassVar[Mapping[str, str]] = {
        "property-version": "it describes Flink's own property format",
        "cache-enabled": "the table is read anew whenever another writer may have changed it",
        "clients": "a pipeline commits through one connection",
        "write.distribution-mode": "rows are put together by partition before a file is written",
        "write.parallelism": "files are written by the engine's worker threads",
    }

    connector: str = Field("iceberg", alias="connector", pattern="^iceberg$")
    """`iceberg`."""
    catalog_name: str = Field("lake", alias="catalog-name", min_length=1)
    """Name of the catalog; rows of one database may belong to several catalogs, told apart by it."""
    catalog_type: Annotated[str, Field(pattern="^(sql|jdbc|rest|glue|hive)$")] = Field("sql", alias="catalog-type")
    """`sql` (`jdbc` is the same): tables of SQLite or PostgreSQL; `rest`, `glue`, `hive`."""
    catalog_impl: str | None = Field(None, alias="catalog-impl")
    """Flink's Java class of a catalog, in place of `catalog-type`."""
    uri: str | None = Field(None, alias="uri")
    """Where the catalog is: `sqlite:///<file>`, `postgresql://...` (`jdbc:` before it is fine), `http(s)://` (REST),
    `thrift://` (Hive); default `<home>/lake/catalog.db`."""
    warehouse: str | None = Field(None, alias="warehouse", min_length=1)
    """Folder of the tables (`file:`, `s3:`, `oss:`, `gs:`, `abfs:`, `hdfs:`), or a REST catalog's name of it; default
    `<home>/lake/warehouse`."""
    jdbc_user: str | None = Field(None, alias="jdbc.user", min_length=1)
    """User of the SQL catalog's database, if the `uri` does not name it."""
    jdbc_password: SecretStr | None = Field(None, alias="jdbc.password")
    """Password of that user."""
    credential: SecretStr | None = Field(None, alias="credential")
    """`client-id:secret` of a REST catalog."""
    token: SecretStr | None = Field(None, alias="token")
    """Bearer token of a REST catalog."""
    scope: str | None = Field(None, alias="scope")
    """OAuth scope of a REST catalog."""
    oauth2_server_uri: str | None = Field(None, alias="oauth2-server-uri")
    """Where a REST catalog's `credential` is changed for a token."""
    database: str = Field("default", alias="catalog-database", pattern=r"^[^\s./][^\s/]*$")
    """Database (namespace) of the table; made when missing."""
    table: str = Field(alias="catalog-table", pattern=r"^[^\s./]+$")
    """The table; made when missing."""
    location: str | None = Field(None, alias="location", min_length=1)
    """Folder of a table that is made, in place of one in the warehouse."""
    on_existing: Literal["adopt", "fail"] = Field("adopt", alias="on_existing")
    """A table that is there before the pipeline's first batch: `adopt` writes it when it fits, `fail` refuses it."""
    partition: str | None = Field(None, alias="partition")
    """Partitions of a table that is made: `day(ts), bucket(16, id), truncate(4, name), region` (also year, month, hour,
    identity); in place of PARTITIONED BY."""
    dimensions: str | None = Field(None, alias="vector.dimensions")
    """Dimensions of vector columns, `feature:10` or `feature:10,other:128`; other lists keep any length."""
    property_version: str | None = Field(None, alias="property-version")
    """Checked, without effect."""
    cache_enabled: Flag | None = Field(None, alias="cache-enabled")
    """Checked, without effect."""
    clients: int | None = Field(None, alias="clients", ge=1)
    """Checked, without effect."""
    format_version: Literal["1", "2"] = Field("2", alias="format-version")
    """Format version of a table that is made; pyiceberg writes 1 and 2."""
    write_format: Literal["parquet"] = Field("parquet", alias="write.format.default")
    """`parquet`, the only file format that pyiceberg writes."""
    upserts: Flag = Field(default=False, alias="write.upsert.enabled")
    """`true`: a row replaces the one with its PRIMARY KEY, and deletes are applied (copy on write); `false`: rows are
    appended as they come."""
    batch_column: str | None = Field(None, alias="batch_column", pattern=r"^[^\s.]+$")
    """Column of an appended table, BIGINT and made where it is missing, that takes beside each row the number of the
    batch whose records it was made of: `replay --rewrite` can then replace a batch's rows."""
    target_file_bytes: MemorySize = Field(512 * 1024**2, alias="write.target-file-size-bytes", ge=1024)
    """Size of a batch's rows in memory from which they go into another file."""
    codec: Literal["zstd", "snappy", "gzip", "lz4", "brotli", "uncompressed"] = Field(
        "zstd", alias="write.parquet.compression-codec"
    )
    """Compression of data files."""
    codec_level: int = Field(1, alias="write.parquet.compression-level", ge=1, le=22)
    """Level of zstd, gzip or brotli."""
    dictionary_bytes: MemorySize = Field(256 * 1024, alias="write.parquet.dict-size-bytes", ge=1024)
    """Size of a column's dictionary from which on its values are written plainly, of a table that is made.
    (Iceberg's own default of 2 MB makes dictionaries of numbers that hardly repeat: larger files, more CPU.)"""
    distribution: Literal["none", "hash", "range"] | None = Field(None, alias="write.distribution-mode")
    """Checked, without effect."""
    parallelism: int | None = Field(None, alias="write.parallelism", ge=1)
    """Checked, without effect."""
    snapshots_kept: int = Field(100, alias="snapshots.keep", ge=0)
    """Snapshots above this number leave the table with a later commit, oldest first: a commit costs more the more there
    are. 0: none leaves but by maintenance."""
    metadata_kept: int = Field(20, alias="write.metadata.previous-versions-max", ge=1)
    """Metadata files of earlier commits that are kept, of a table that is made."""
    commit_retries: int = Field(4, alias="commit.retry.num-retries", ge=0)
    """Attempts after the first when another writer's commit came first."""
    commit_wait_ms: int = Field(100, alias="commit.retry.min-wait-ms", ge=0)
    """Wait between attempts, in milliseconds."""
    io: str | None = Field(
        None, alias="py-io-impl", pattern=r"^pyiceberg\.io\.(pyarrow\.PyArrow|fsspec\.Fsspec)FileIO$"
    )
    """What reads and writes files: `pyiceberg.io.pyarrow.PyArrowFileIO` or `pyiceberg.io.fsspec.FsspecFileIO`."""
    s3: Secrets = Field(default_factory=dict, alias="s3.")
    """S3-compatible stores: `s3.endpoint`, `s3.access-key-id`, `s3.secret-access-key`, `s3.region`, ..., as pyiceberg
    spells them; secrets all."""
    oss: Secrets = Field(default_factory=dict, alias="oss.")
    """The same for Alibaba Cloud OSS by fsspec."""
    gcs: Secrets = Field(default_factory=dict, alias="gcs.")
    """The same for Google Cloud Storage."""
    adls: Secrets = Field(default_factory=dict, alias="adls.")
    """The same for Azure."""
    hdfs: Secrets = Field(default_factory=dict, alias="hdfs.")
    """The same for HDFS."""
    hugging: Secrets = Field(default_factory=dict, alias="hf.")
    """The same for Hugging Face."""
    client: Secrets = Field(default_factory=dict, alias="client.")
    """`client.region`, `client.access-key-id`, ...: for S3 and Glue together."""
    glue: Secrets = Field(default_factory=dict, alias="glue.")
    """Glue's own properties."""
    rest: Secrets = Field(default_factory=dict, alias="rest.")
    """A REST catalog's own properties."""
    hive: Secrets = Field(default_factory=dict, alias="hive.")
    """Hive's own properties."""
    header: Secrets = Field(default_factory=dict, alias="header.")
    """HTTP headers for a REST catalog."""
    # the home of the time when the declaration was read
    _home: Path = PrivateAttr(default_factory=env.home)

    @field_validator("catalog_impl")
    @classmethod
    def _is_known_class(cls, name: str | None) -> str | None:
        if name is not None and name not in _IMPLEMENTATIONS:
            raise ValueError(f"no Java class runs here; known: {', '.join(_IMPLEMENTATIONS)}")
        return name

    @field_validator("partition")
    @classmethod
    def _is_partition(cls, text: str | None) -> str | None:
        if text is not None:
            parse_partition(text)
        return text

    @field_validator("dimensions")
    @classmethod
    def _are_dimensions(cls, text: str | None) -> str | None:
        if text is not None:
            _dimensions(text)
        return text

    @model_validator(mode="after")
    def _has_no_contradiction(self) -> Self:
        if self.upserts and self.format_version == "1":
            raise ValueError("'write.upsert.enabled' = 'true' needs 'format-version' = '2'")
        if self.upserts and self.batch_column is not None:
            raise ValueError("'batch_column' is for appended rows: with 'write.upsert.enabled' = 'true' leave it out")
        if self.kind != "sql" and self.kind != "glue" and self.uri is None:
            raise ValueError(f"option 'uri' is required by a {self.kind} catalog")
        if self.kind == "sql" and self.uri and not re.match(r"(jdbc:)?(sqlite|postgres(ql)?)(\+\w+)?:", self.uri):
            raise ValueError("'uri' of a sql catalog begins with sqlite: or postgresql:")
        return self

    @classmethod
    def _explain(cls, name: str, first: Any, raw: Mapping[str, str]) -> str:
        return super()._explain(name, first, {**raw, "uri": _without_credentials(raw.get("uri", ""))})

    def shown(self) -> dict[str, str]:
        """Every option as users spell it; secrets, and credentials in the `uri`, as stars."""
        found = super().shown()
        if self.uri is not None:
            found["uri"] = re.sub(r"(?<=//)[^/]*(?=@)", "***", _without_parameters(self.uri))
        return found

    @property
    def kind(self) -> str:
        """`sql`, `rest`, `glue` or `hive`."""
        return _IMPLEMENTATIONS[self.catalog_impl] if self.catalog_impl else _KINDS[self.catalog_type]

    @property
    def guarantee(self) -> Guarantee:
        """What the kind of catalog allows: Hive's guards a commit by a lock that may expire before it is done."""
        return "at-least-once" if self.kind == "hive" else "exactly-once"

    @property
    def merge(self) -> Merge:
        """What several rows of one key come to."""
        return Merge.LAST if self.upserts else Merge.APPEND

    @property
    def wire(self) -> WireLimits:
        """Rows of the first batch; the pipeline's own linger rules."""
        return WireLimits(flush_rows=_FLUSH_ROWS, linger_seconds=_LINGER_SECONDS)

    @property
    def retry(self) -> RetryPolicy:
        """Attempts for a batch whose commit fails."""
        return RetryPolicy(retries=self.commit_retries, wait_seconds=self.commit_wait_ms / 1000)

    @property
    def declared_dimensions(self) -> dict[str, int]:
        """Dimension by column, as the option says."""
        return _dimensions(self.dimensions) if self.dimensions else {}

    @property
    def login(self) -> CatalogLogin:
        """The catalog; folders of the default one are made."""
        given = {
            prefix + name: value.get_secret_value()
            for prefix in self.pass_through
            for name, value in self._passed(prefix).items()
        }
        given |= {
            name: value.get_secret_value()
            for name, value in (("credential", self.credential), ("token", self.token))
            if value is not None
        }
        given |= {"scope": self.scope or "", "oauth2-server-uri": self.oauth2_server_uri or ""}
        given |= {"py-io-impl": self.io or ""}
        given |= {"uri": self._catalog_uri(), "warehouse": self._warehouse()}
        properties = {name: value for name, value in given.items() if value}
        return CatalogLogin(self.kind, self.catalog_name, f"iceberg: catalog {self.catalog_name}", properties)

    def _passed(self, prefix: str) -> Secrets:
        fields = type(self).model_fields
        name = next(name for name, field in fields.items() if field.alias == prefix)
        found: Secrets = getattr(self, name)
        return found

    def _catalog_uri(self) -> str:
        if self.kind != "sql":
            return self.uri or ""
        if self.uri is None:
            folder = self._home / "lake"
            folder.mkdir(parents=True, exist_ok=True)
            return f"sqlite:///{folder / 'catalog.db'}"
        uri = self.uri.removeprefix("jdbc:")
        if uri.startswith("sqlite:") and not uri.startswith("sqlite://"):
            # the JDBC driver's spelling
            uri = uri.replace("sqlite:", "sqlite:///", 1)
        uri = re.sub(r"^postgres(ql)?:", "postgresql+psycopg:", uri)
        if self.jdbc_user and "@" not in uri:
            password = f":{quote(self.jdbc_password.get_secret_value(), safe='')}" if self.jdbc_password else ""
            uri = uri.replace("//", f"//{quote(self.jdbc_user, safe='')}{password}@", 1)
        return uri

    def _warehouse(self) -> str:
        if self.warehouse is None and self.kind == "sql":
            return f"file://{self._home / 'lake' / 'warehouse'}"
        return self.warehouse or ""

    @property
    def folder(self) -> str | None:
        """Folder of a table that is made: `location`, else where an SQL catalog puts it."""
        if self.location is not None or self.kind != "sql":
            return self.location
        return "/".join((self._warehouse().rstrip("/"), *self.identifier))

    @property
    def identifier(self) -> tuple[str, ...]:
        """The table's name in the catalog, level by level."""
        return (*self.database.split("."), self.table)

    @property
    def full_name(self) -> str:
        """`database.table`."""
        return f"{self.database}.{self.table}"

    def target(self) -> str:
        """`iceberg://<catalog>/<database>.<table>`, the catalog by its name and its address without credentials."""
        place = _without_credentials((self.uri or "").removeprefix("jdbc:"))
        return f"iceberg://{self.catalog_name}{f'@{place}' if place else ''}/{self.full_name}"

    def refusal_of_changes(self) -> tuple[str, str] | None:
        """Only upserts can take anything but inserts."""
        if self.upserts:
            return None
        return "write.upsert.enabled", "rows are appended; set 'write.upsert.enabled' = 'true' to apply changes by key"


def _without_credentials(uri: str) -> str:
    return _without_parameters(re.sub(r"//[^/]*@", "//", uri))


def _without_parameters(uri: str) -> str:
    return re.sub(r"([?&](?:user|\w*password))=[^&]*", r"\1=***", uri, flags=re.IGNORECASE)


def _dimensions(text: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for part in text.split(","):
        column, _, number = part.strip().rpartition(":")
        if not column or not number.isdigit() or int(number) < 1 or column in found:
            raise ValueError("want column:dimension, separated by commas, such as 'feature:10'")
        found[column] = int(number)
    return found
