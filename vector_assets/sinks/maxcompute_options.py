"""Options of a sink table of connector `odps`."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from vector_assets.clients.maxcompute_options import MaxComputeOptions
from vector_assets.clients.maxcompute_partitions import parse
from vector_assets.clients.maxcompute_write import Tunnel
from vector_assets.engine.core import WireLimits
from vector_assets.engine.options import Flag, MemorySize, SinkOptions
from vector_assets.engine.retry import RetryPolicy

UPSERT_ONLY = (
    "upsertAsyncCommit", "upsertCommitTimeoutMs", "upsert.writer.max-retries", "upsert.writer.buffer-size",
    "upsert.writer.bucket.buffer-size", "upsert.write.bucket.num", "upsert.write.slot-num",
    "upsert.commit.max-retries", "upsert.commit.thread-num", "upsert.commit.timeout", "upsert.flush.concurrent",
    "upsert.partial-column.enable", "sink.file-cached.enable",
)  # fmt: skip
INSERT_ONLY = ("insert.commit.thread-num", "insert.arrow-writer.enable", "insert.writer.buffer-size")
FILE_CACHED = (
    "sink.file-cached.writer.num", "sink.bucket.check-interval", "sink.file-cached.rolling.max-size",
    "sink.file-cached.memory", "sink.file-cached.memory.segment-size", "sink.file-cached.flush.always",
    "sink.file-cached.write.max-retries",
)  # fmt: skip
_LONGEST_LINGER_S = 3600.0
_FIRST_ROWS = 10_000


def _lower(text: Any) -> Any:
    return text.lower() if isinstance(text, str) else text


class MaxComputeSinkOptions(MaxComputeOptions, SinkOptions):
    """What a sink table of connector `odps` may say."""

    idle: ClassVar[Mapping[str, str]] = {
        "sink.parallelism": "a pipeline has one committer; that the buckets are a multiple of it is checked",
        "insert.arrow-writer.flush-interval": "a batch is sent as a whole, nothing waits in a writer",
        "sink.bucket.check-interval": "a file's size is looked at with every write",
        "sink.file-cached.memory": "it sizes memory outside of a Java heap",
        "sink.file-cached.memory.segment-size": "it sizes memory outside of a Java heap",
        "sink.file-cached.flush.always": "files are always written through and read back",
    }

    partition: str | None = Field(None, min_length=1)
    """Where rows go: `ds=20180905`, `ds=20180905,hh=01`; `ds` or `ds,hh` for the values of these columns; both mixed:
    `ds=20180905,hh`. Partitions that are missing are made. Not for tables without partitions."""
    use_stream_tunnel: Flag = Field(default=False, alias="useStreamTunnel")
    """Write by the streaming tunnel: rows are visible when they are sent, at least once."""
    flush_interval_ms: int = Field(30_000, alias="flushIntervalMs", ge=0)
    """Continuous mode: longest wait for a batch that is not full, in milliseconds; 0: as the pipeline is set. (Rows of
    the batch and upsert tunnels are visible when their batch is committed.)"""
    batch_size: int = Field(64 << 20, alias="batchSize", ge=1)
    """Bytes of a block or request, at most."""
    num_flush_threads: int = Field(1, alias="numFlushThreads", ge=1)
    """Partitions that are sent at a time."""
    slot_num: int = Field(0, alias="slotNum", ge=0)
    """Slots of a session of the streaming tunnel; 0: the service decides."""
    dynamic_partition_limit: int = Field(100, alias="dynamicPartitionLimit", ge=1)
    """Most partitions that the rows of a batch may name."""
    enable_upsert: Flag = Field(default=False, alias="enableUpsert")
    """Write inserts, updates and deletes by the upsert tunnel, into a Delta table."""
    upsert_async_commit: Flag = Field(default=False, alias="upsertAsyncCommit")
    """Do not wait until a commit that the service has taken can be read."""
    upsert_commit_timeout_ms: int | None = Field(None, alias="upsertCommitTimeoutMs", ge=1)
    """Longest wait for a commit in milliseconds, unless `upsert.commit.timeout` is given."""
    operation: Annotated[Literal["insert", "upsert"], BeforeValidator(_lower)] = Field("insert", alias="sink.operation")
    """What rows do to a Delta table: `insert` appends by the insert tunnels, `upsert` is `enableUpsert`."""
    parallelism: int | None = Field(None, alias="sink.parallelism", ge=1)
    """Without effect but checked: upsert.write.bucket.num must be a multiple of it."""
    file_cached: Flag = Field(default=False, alias="sink.file-cached.enable")
    """Upsert tunnel: keep the rows of each partition and bucket in files first, so that fewer and larger ones are
    sent."""
    file_cached_writers: int = Field(16, alias="sink.file-cached.writer.num", ge=1)
    """Files that are sent at a time."""
    bucket_check_interval: int = Field(60_000, alias="sink.bucket.check-interval", ge=1)
    """Without effect: a file's size is looked at with every write."""
    file_cached_rolling: MemorySize = Field(16 << 20, alias="sink.file-cached.rolling.max-size", ge=1024)
    """Bytes after which a file is sent and another one begun."""
    file_cached_memory: MemorySize = Field(64 << 20, alias="sink.file-cached.memory", ge=1)
    """Without effect: it sizes memory outside of a Java heap."""
    file_cached_segment: MemorySize = Field(128 << 10, alias="sink.file-cached.memory.segment-size", ge=1)
    """Without effect: it sizes memory outside of a Java heap."""
    file_cached_flush_always: Flag = Field(default=True, alias="sink.file-cached.flush.always")
    """Without effect: files are always written through and read back."""
    file_cached_retries: int = Field(3, alias="sink.file-cached.write.max-retries", ge=0)
    """Retries of sending a file."""
    writer_retries: int = Field(3, alias="upsert.writer.max-retries", ge=0)
    """Retries of sending changes to a bucket."""
    writer_buffer: MemorySize = Field(64 << 20, alias="upsert.writer.buffer-size", ge=1024)
    """Bytes of a partition's rows that are encoded at a time, over all buckets."""
    bucket_buffer: MemorySize = Field(1 << 20, alias="upsert.writer.bucket.buffer-size", ge=1024)
    """Bytes of a request with changes to a bucket, about."""
    bucket_num: int | None = Field(None, alias="upsert.write.bucket.num", ge=1)
    """Buckets of the Delta table: must be what the table has. Required by the upsert tunnel."""
    slots: int = Field(1, alias="upsert.write.slot-num", ge=1)
    """Slots of an upsert session."""
    commit_retries: int = Field(3, alias="upsert.commit.max-retries", ge=0)
    """Retries of an upsert session's commit."""
    commit_threads: int = Field(16, alias="upsert.commit.thread-num", ge=1)
    """Upsert sessions that are committed at a time."""
    commit_timeout: int | None = Field(None, alias="upsert.commit.timeout", ge=1)
    """Longest wait for a commit in seconds. It wins over `upsertCommitTimeoutMs`; with neither 600 seconds."""
    flush_concurrent: int = Field(2, alias="upsert.flush.concurrent", ge=1)
    """Buckets of a partition that are sent at a time."""
    insert_commit_threads: int = Field(16, alias="insert.commit.thread-num", ge=1)
    """Upload sessions that are committed at a time."""
    arrow: Flag | None = Field(None, alias="insert.arrow-writer.enable")
    """Send inserts as Arrow (`true`) or as records (`false`); unless set, as Arrow where no column is JSON, which Arrow
    has no type for. The streaming tunnel takes records only."""
    arrow_rows: int = Field(512, alias="insert.arrow-writer.batch-size", ge=1)
    """Most rows of an Arrow batch."""
    arrow_flush: int = Field(100_000, alias="insert.arrow-writer.flush-interval", ge=1)
    """Without effect: a batch is sent as a whole."""
    writer_size: MemorySize = Field(64 << 20, alias="insert.writer.buffer-size", ge=1024)
    """Bytes of a block of an upload session, at most; the smaller of this and batchSize holds."""
    partial: Flag = Field(default=False, alias="upsert.partial-column.enable")
    """Change only the columns that the table declares and whose new value is not null; of a new key all others are
    null."""

    @field_validator("partition")
    @classmethod
    def _is_place(cls, text: str | None) -> str | None:
        if text is not None:
            levels_of(text)
        return text

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.is_upsert:
            if self.bucket_num is None:
                raise ValueError(
                    "option 'upsert.write.bucket.num' is required with enableUpsert or sink.operation=upsert: the"
                    " number of buckets that the Delta table was made with (write.bucket.num)"
                )
            if self.parallelism and self.bucket_num % self.parallelism:
                raise ValueError(
                    f"option 'upsert.write.bucket.num' is {self.bucket_num}, which is no multiple of sink.parallelism"
                    f" {self.parallelism}"
                )
        return self

    @property
    def makes_table(self) -> bool:
        """True where `prepare` makes a table that is missing."""
        return False

    @property
    def keeps_buckets(self) -> bool:
        """True where a table that is there may have another number of buckets than the options say."""
        return False

    @property
    def is_upsert(self) -> bool:
        """True where changes are written by key."""
        return self.enable_upsert or self.operation == "upsert"

    @property
    def tunnel(self) -> Tunnel:
        """Which tunnel is written to."""
        if self.is_upsert:
            return "upsert"
        return "stream" if self.use_stream_tunnel else "batch"

    @property
    def wire(self) -> WireLimits:
        """Rows of the first batch, longest wait of one that is not full."""
        seconds = self.flush_interval_ms / 1000 if self.flush_interval_ms else _LONGEST_LINGER_S
        return WireLimits(_FIRST_ROWS, seconds)

    @property
    def block_bytes(self) -> int:
        """Most bytes of a block."""
        return min(self.batch_size, self.writer_size)

    @property
    def commit_wait(self) -> timedelta:
        """Longest wait for the commit of an upsert session."""
        if self.commit_timeout is not None:
            return timedelta(seconds=self.commit_timeout)
        if self.upsert_commit_timeout_ms is not None:
            return timedelta(milliseconds=self.upsert_commit_timeout_ms)
        return timedelta(seconds=600)

    def policy(self, retries: int) -> RetryPolicy:
        """As `retry`, with so many retries."""
        return RetryPolicy(retries, self.sleep_millis / 1000, outage_seconds=0.0)

    def target(self) -> str:
        """`maxcompute://project.table`, with the static partition if there is one."""
        return f"maxcompute://{self.full_name}" + (f"/{self.partition}" if self.partition else "")

    def refusal_of_changes(self) -> tuple[str, str] | None:
        """Only the upsert tunnel takes updates and deletes."""
        if self.is_upsert:
            return None
        return "enableUpsert", (
            f"the {'streaming' if self.use_stream_tunnel else 'batch'} tunnel takes inserts only: set 'enableUpsert' ="
            " 'true' (and 'upsert.write.bucket.num'), for a Delta table"
        )

    def reports(self) -> tuple[str, ...]:
        """What depends on an option that is not set, or gives way to another."""
        fields = type(self).model_fields
        given = {fields[name].alias or name for name in self.model_fields_set}
        found = list(super().reports())

        def tell(names: tuple[str, ...], why: str) -> None:
            said = {report.split("'")[1] for report in found}
            found.extend(
                f"option {name!r} has no effect: {why}" for name in names if name in given and name not in said
            )

        if self.is_upsert:
            tell(("useStreamTunnel",), "enableUpsert is given, the upsert tunnel is used")
            tell((*INSERT_ONLY, "insert.arrow-writer.batch-size"), "the upsert tunnel is used, not an insert tunnel")
            if self.enable_upsert and self.operation == "insert":
                tell(("sink.operation",), "enableUpsert is true, which is the operation upsert")
            if self.commit_timeout is not None:
                tell(("upsertCommitTimeoutMs",), "upsert.commit.timeout is given and wins")
        else:
            tell(UPSERT_ONLY, "neither enableUpsert nor sink.operation=upsert is given")
        if not (self.is_upsert and self.file_cached):
            tell(FILE_CACHED, "sink.file-cached.enable is not true")
        if self.tunnel == "stream":
            tell(("insert.arrow-writer.enable", "insert.arrow-writer.batch-size"), "the streaming tunnel takes records")
            tell(("insert.commit.thread-num",), "the streaming tunnel has no commit")
        elif self.arrow is False:
            tell(("insert.arrow-writer.batch-size",), "insert.arrow-writer.enable is false")
        if self.tunnel != "stream":
            tell(("slotNum",), "useStreamTunnel is not in use; an upsert session's slots are upsert.write.slot-num")
        if not (self.partition and any(value is None for value in levels_of(self.partition).values())):
            tell(("dynamicPartitionLimit",), "the rows name no partitions")
        return tuple(found)


def levels_of(text: str) -> dict[str, str | None]:
    """The levels that the option names, with their values; None where a column gives it.

    Raises:
        ValueError: it is not understood.
    """
    found: dict[str, str | None] = {}
    for part in text.replace("/", ",").split(","):
        name, sign, _ = part.partition("=")
        name = name.strip()
        if name.lower() in {known.lower() for known in found}:
            raise ValueError(f"level {name} is given twice; a sink writes one partition, or those that columns name")
        if sign:
            (spec,) = parse(part).specs or ({},)
            value = spec.get(name, "")
            if not value or "*" in value:
                raise ValueError(f"want one value for level {name}, such as {name}=20180905; '*' is for sources")
            found[name] = value
        elif name and name.isidentifier():
            found[name] = None
        else:
            raise ValueError(
                f"want ds=20180905, levels joined by ',' (yyyy=2018,MM=09), or names of columns (ds); found {part!r}"
            )
    return found
