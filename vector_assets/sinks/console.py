"""Sinks that keep nothing: `print` shows every row on standard output, `blackhole` only counts."""

import sys
from collections.abc import Mapping
from typing import ClassVar, Literal, TextIO

import pyarrow as pa
from pydantic import Field

from vector_assets.engine.core import (
    KIND,
    POSITION,
    Batch,
    BatchToken,
    Counts,
    Found,
    Json,
    Merge,
    Receipt,
    Staged,
    Target,
    WireLimits,
)
from vector_assets.engine.options import SinkOptions
from vector_assets.engine.retry import RetryPolicy
from vector_assets.engine.schema import Table

_KINDS = ("+I", "-U", "+U", "-D")
_PIECE_ROWS = 1000


class BlackholeOptions(SinkOptions):
    """What a table of connector `blackhole` may say."""

    is_shared: ClassVar[bool] = True
    idle: ClassVar[Mapping[str, str]] = {"property-version": "there is one version"}

    connector: Literal["blackhole"]
    """`blackhole`."""
    version: Literal["1"] = Field("1", alias="property-version")
    """Without effect: there is one version."""

    def target(self) -> str:
        """`blackhole://`."""
        return "blackhole://"


class PrintOptions(SinkOptions):
    """What a table of connector `print` may say."""

    is_shared: ClassVar[bool] = True
    idle: ClassVar[Mapping[str, str]] = {"sink.parallelism": "rows are written by one thread, in order"}

    connector: Literal["print"]
    """`print`."""
    identifier: str = Field("", alias="print-identifier")
    """Put before each row."""
    standard_error: bool = Field(default=False, alias="standard-error")
    """Write to standard error instead of standard output."""
    parallelism: int | None = Field(None, alias="sink.parallelism", ge=1)
    """Without effect: rows are written by one thread, in order."""

    def target(self) -> str:
        """`print://` and the identifier."""
        return f"print://{self.identifier}"


class BlackholeSink:
    """Takes every change and keeps none, so it cannot say what it had: a batch tried again is taken again."""

    merge = Merge.CHANGELOG
    wire = WireLimits(1000, 1.0)
    retry = RetryPolicy()

    def __init__(self, options: BlackholeOptions, table: Table | None = None, pipeline: str = "") -> None:
        self.options: SinkOptions = options
        self.table = table
        self.pipeline = pipeline

    def prepare(self, schema: pa.Schema, declared_key: tuple[str, ...]) -> Target:
        """Any schema will do."""
        columns = {field.name: str(field.type) for field in schema}
        return Target(self.options.target(), declared_key, columns, "1", "at-least-once")

    def inspect(self, schema: pa.Schema, declared_key: tuple[str, ...]) -> Target:
        """As `prepare`, which changes nothing."""
        return self.prepare(schema, declared_key)

    def stage(self, batch: Batch, token: BatchToken) -> Staged:
        """Keep the rows for the commit."""
        return Staged(token, payload=batch.upserts)

    def commit(self, staged: Staged) -> Receipt:
        """Count the rows."""
        return Receipt(staged.token.id, "", Counts(written=staged.payload.num_rows))

    def find(self, token: BatchToken, committable: Json) -> Found:
        """Nothing is kept, so never there."""
        return "ABSENT"

    def receipt(self, token: BatchToken) -> Receipt:
        """Nothing is kept; only what is found has a receipt."""
        return Receipt(token.id, "")

    def forget(self, pipeline: str) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Nothing is open."""


class PrintSink(BlackholeSink):
    """Writes every change as Flink's print connector does: `identifier> +I[1, a]`."""

    def __init__(self, options: PrintOptions, table: Table | None = None, pipeline: str = "") -> None:
        self.options = options
        self.table = table
        self.pipeline = pipeline
        self._prefix = f"{options.identifier}> " if options.identifier else ""
        self._to_stderr = options.standard_error

    def commit(self, staged: Staged) -> Receipt:
        """Write the rows, in order."""
        stream = sys.stderr if self._to_stderr else sys.stdout
        for batch in staged.payload.to_batches(max_chunksize=_PIECE_ROWS):
            self._write(stream, batch)
        stream.flush()
        return super().commit(staged)

    def _write(self, stream: TextIO, batch: pa.RecordBatch) -> None:
        names = [name for name in batch.schema.names if name not in {KIND, POSITION}]
        columns = [batch.column(name).to_pylist() for name in names]
        kinds = batch.column(KIND).to_pylist() if KIND in batch.schema.names else [0] * batch.num_rows
        stream.writelines(
            f"{self._prefix}{_KINDS[kind]}[{', '.join(map(_shown, row))}]\n"
            for kind, row in zip(kinds, zip(*columns, strict=True), strict=True)
        )


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, dict):
        return f"+I[{', '.join(map(_shown, value.values()))}]"
    return "null" if value is None else str(value)
