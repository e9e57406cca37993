"""Data files and snapshots of a Paimon table: pypaimon's writers, with row kinds and a commit of one attempt."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from pypaimon.snapshot.snapshot_commit import SnapshotCommit
from pypaimon.table.bucket_mode import BucketMode
from pypaimon.write.file_store_commit import FileStoreCommit
from pypaimon.write.file_store_write import FileStoreWrite
from pypaimon.write.table_write import TableWrite
from pypaimon.write.writer.append_only_data_writer import AppendOnlyDataWriter
from pypaimon.write.writer.key_value_data_writer import KeyValueDataWriter

from vector_assets.clients.paimon import LostRaceError, Storage, local_path, sync
from vector_assets.engine.core import RowKind
from vector_assets.sinks.paimon_manifests import MergingLists

if TYPE_CHECKING:
    from pypaimon.snapshot.snapshot import Snapshot
    from pypaimon.table.file_store_table import FileStoreTable
    from pypaimon.write.commit_message import CommitMessage

_SPARK_DECIMALS = {"store_decimal_as_integer": True}
"""Paimon's Java readers expect a DECIMAL of precision <= 18 in Parquet to be an INT32 or INT64."""
_DICTIONARIES = {"dictionary_pagesize_limit": 256 * 1024}
"""Arrow's 1 MB makes dictionaries of numbers that hardly repeat: larger files, a quarter more CPU."""
ONE_ATTEMPT = {"commit.max-retries": "0", "snapshot.ignore-empty-commit": "false", "commit.native.enabled": "false"}


def _as_spark_reads(writer: Any) -> None:
    """Set what pypaimon leaves to the Parquet library."""
    if writer.file_format == "parquet":
        writer.parquet_writer_options = {**writer.parquet_writer_options, **_SPARK_DECIMALS, **_DICTIONARIES}


class _AppendWriter(AppendOnlyDataWriter):  # type: ignore[misc]
    """Data files of an append table."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        _as_spark_reads(self)


class _KeyedWriter(KeyValueDataWriter):  # type: ignore[misc]
    """Data files of a table with a primary key; `kind` is the row kind of what is written next.

    No two rows that one batch hands over share a key, so pypaimon's fold of equal keys, which makes Python objects of
    every row, is left out.
    """

    kind = RowKind.INSERT

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        _as_spark_reads(self)

    def _add_system_fields(self, data: pa.RecordBatch) -> pa.RecordBatch:
        first = self.sequence_generator.current + 1
        self.sequence_generator.current += data.num_rows
        sequence = pa.array(range(first, first + data.num_rows), pa.int64())
        keys = [name for name in self.trimmed_primary_keys if name in data.schema.names]
        fields = [data.schema.field(name).with_name(f"_KEY_{name}") for name in keys]
        fields += [pa.field("_SEQUENCE_NUMBER", pa.int64(), nullable=False)]
        fields += [pa.field("_VALUE_KIND", pa.int8(), nullable=False)]
        kinds = pa.repeat(pa.scalar(int(self.kind), pa.int8()), data.num_rows)
        arrays = [*(data.column(name) for name in keys), sequence, kinds, *data.columns]
        return pa.RecordBatch.from_arrays(arrays, schema=pa.schema([*fields, *data.schema]))

    def _merge_pending_by_pk(self, data: pa.Table) -> pa.Table:
        return data

    def _write_data_to_file(self, data: pa.Table) -> None:
        self._deletes = int(pc.sum(pc.equal(data.column("_VALUE_KIND"), int(RowKind.DELETE))).as_py() or 0)
        super()._write_data_to_file(data)

    def _create_data_file_meta(self, *arguments: Any, **named: Any) -> Any:
        # pypaimon notes 0, and a reader then takes a file that is alone in its bucket for rows without deletes
        meta = super()._create_data_file_meta(*arguments, **named)
        meta.delete_row_count = self._deletes
        return meta


class Files(FileStoreWrite):  # type: ignore[misc]
    """pypaimon's choice of buckets with our writers."""

    kind = RowKind.INSERT

    def _create_data_writer(self, partition: tuple[Any, ...], bucket: int, options: Any) -> Any:
        table = self.table
        named = {"table": table, "partition": partition, "bucket": bucket, "options": options}
        if table.is_primary_key_table:
            newest = self._seq_number_stats(partition).get(bucket, -1)
            writer = _KeyedWriter(
                **named, max_seq_number=newest, merge_function=self._build_pk_merge_function(),
                changelog_producer=self.changelog_producer,
            )  # fmt: skip
            writer.kind = self.kind
            return writer
        is_unordered = table.bucket_mode() == BucketMode.BUCKET_UNAWARE
        newest = 0 if is_unordered else self._seq_number_stats(partition).get(bucket, 1)
        return _AppendWriter(**named, max_seq_number=newest)

    def turn(self, kind: RowKind) -> None:
        """What is written from now on are rows of this kind."""
        self.kind = kind
        for writer in self.data_writers.values():
            writer.kind = kind


class _Write(TableWrite):  # type: ignore[misc]
    def _create_file_store_write(self, commit_user: str) -> Files:
        return Files(self.table, commit_user)


def write_files(
    table: "FileStoreTable",
    user: str,
    identifier: int,
    upserts: pa.Table,
    deletes: pa.Table | None = None,
    sequences: dict[tuple[Any, ...], dict[int, int]] | None = None,
) -> "list[CommitMessage]":
    """Data files of a batch, in the table's columns and types; nothing is visible before they are committed.

    `sequences` are the highest sequence numbers by partition and bucket, as far as they are known.
    """
    write = _Write(table, user)
    if sequences is not None:
        write.file_store_write.max_seq_numbers = sequences
    try:
        write.write_arrow(upserts)
        if deletes is not None and deletes.num_rows:
            write.file_store_write.turn(RowKind.DELETE)
            write.write_arrow(deletes)
        return list(write._prepare_commit(identifier))
    except BaseException:
        write.abort()
        raise
    finally:
        write.close()


def drop_files(table: "FileStoreTable", messages: "Sequence[CommitMessage]") -> None:
    """Remove data files that were never committed."""
    for message in messages:
        for file in message.new_files:
            for path in file.collect_files():
                table.file_io.delete_quietly(path)


class Next(SnapshotCommit):  # type: ignore[misc]
    """Makes a snapshot only as the successor of the one whose tokens were looked at."""

    def __init__(self, storage: Storage, table: "FileStoreTable", base: "Snapshot | None") -> None:
        self.storage = storage
        self.table = table
        self.base = base
        self.has_lost = False
        self.made: int | None = None

    def commit(self, base_snapshot_uuid: str | None, snapshot: "Snapshot", statistics: Any) -> bool:
        """True when the snapshot was made; called by pypaimon."""
        from pypaimon.common.json_util import JSON

        if snapshot.id != (self.base.id + 1 if self.base else 1):
            self.has_lost = True
            return False
        self._sync_manifests(snapshot)
        manager = self.table.snapshot_manager()
        if not self.storage.create_file(manager.get_snapshot_path(snapshot.id), JSON.to_json(snapshot, indent=2)):
            self.has_lost = True
            return False
        self.made = snapshot.id
        # a hint: readers look for a later snapshot by themselves
        self.storage.replace_file(manager.latest_file, str(snapshot.id))
        return True

    def _sync_manifests(self, snapshot: "Snapshot") -> None:
        if not self.storage.is_local:
            return
        from pypaimon.manifest.manifest_list_manager import ManifestListManager

        folder = local_path(self.table.table_path) / "manifest"
        lists = ManifestListManager(self.table)
        names = [snapshot.base_manifest_list, snapshot.delta_manifest_list]
        names += [meta.file_name for meta in lists.read(snapshot.delta_manifest_list)]
        for name in names:
            sync(folder / name)
        sync(folder)

    def close(self) -> None:
        """Nothing is held."""


def commit_files(
    storage: Storage,
    table: "FileStoreTable",
    base: "Snapshot | None",
    user: str,
    identifier: int,
    messages: "Sequence[CommitMessage]",
    properties: Mapping[str, str],
) -> int:
    """Make the snapshot after `base` of data files and properties; its number. One attempt.

    Raises:
        LostRaceError: another snapshot came first.
        RuntimeError, OSError: it may or may not have been made.
    """
    if storage.is_local:
        sync_files(messages)
    publisher = Next(storage, table, base)
    commit = FileStoreCommit(publisher, table.copy(ONE_ATTEMPT), user)
    commit.manifest_list_manager = MergingLists(table)
    try:
        commit.commit([m for m in messages if not m.is_empty()], identifier, dict(properties))
    except RuntimeError as error:
        if publisher.has_lost:
            raise LostRaceError(f"{storage.place}: another snapshot came first") from error
        if publisher.made is None:
            raise
    if publisher.made is None:
        raise RuntimeError("pypaimon made no snapshot")
    return publisher.made


def sync_files(messages: "Sequence[CommitMessage]") -> None:
    """Force data files and their folders out to the disk."""
    folders = set()
    for message in messages:
        for file in message.new_files:
            for path in map(local_path, file.collect_files()):
                sync(path)
                folders.add(path.parent)
    for folder in folders:
        sync(folder)


def delete_rows(keys: pa.Table, schema: pa.Schema) -> pa.Table:
    """Keys as rows of the table: every other column is null, or empty where it takes no null."""
    columns = []
    for field in schema:
        if field.name in keys.column_names:
            columns.append(keys.column(field.name))
        elif field.nullable:
            columns.append(pa.nulls(keys.num_rows, field.type))
        else:
            columns.append(pc.fill_null(pa.nulls(keys.num_rows, field.type), _zero(field.type)))
    return pa.table(columns, schema=schema)


def _zero(kind: pa.DataType) -> pa.Scalar:
    """Some value of a type; nobody ever reads it, for it stands in the row of a delete."""
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return pa.scalar("" if pa.types.is_string(kind) else b"", kind)
    if pa.types.is_nested(kind):
        return pa.scalar({} if pa.types.is_struct(kind) else [], kind)
    return pa.Array.from_buffers(kind, 1, [None, pa.py_buffer(bytes(16))])[0]
