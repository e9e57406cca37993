"""Read sessions of the storage API: a snapshot of a partition in splits, each one stream of Arrow batches."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from vector_assets.clients.maxcompute import MaxColumn, MaxCompute, MaxTable
from vector_assets.clients.maxcompute_errors import RefusedError
from vector_assets.clients.maxcompute_read import check_readable
from vector_assets.engine.errors import PlanError, TransientError

StorageCodec = Literal["", "ZSTD", "LZ4_FRAME"]
BATCH_ROWS = 16_384
_WAIT_S, _POLL_S = 60.0, 0.2


@dataclass(frozen=True, slots=True)
class ReadSession:
    """A session over one partition (or a table without partitions): `splits` are numbered from 0 in reading order."""

    table: MaxTable
    spec: str | None
    id: str
    splits: int

    @property
    def place(self) -> str:
        """`project.table/ds=20180905`."""
        return f"{self.table.name}/{self.spec}" if self.spec else self.table.name


def open_session(
    service: MaxCompute, table: MaxTable, spec: str | None, columns: Sequence[MaxColumn], split_bytes: int
) -> ReadSession:
    """A new session over these columns (partition columns among them) in splits of about so many bytes.

    Raises:
        PlanError: a JSON column, which has no Arrow type; a Delta table or a view.
        NoPartitionError: the partition is gone.
    """
    check_readable(table)
    table.check_nested([column.name for column in columns])
    texts = [column.name for column in columns if column.is_json]
    if texts:
        raise PlanError(f"maxcompute: {table.name}: useArrow reads no JSON column ({', '.join(texts)}); leave it out")
    place = f"{table.name}/{spec}" if spec else table.name
    return service.ask(lambda: _opened(service, table, spec, columns, split_bytes), place)


def _opened(
    service: MaxCompute, table: MaxTable, spec: str | None, columns: Sequence[MaxColumn], split_bytes: int
) -> ReadSession:
    from odps.apis.storage_api.storage_api import SessionRequest, SessionStatus, SplitOptions, TableBatchScanRequest

    client = _client(service, table)
    levels = {level.name for level in table.levels}
    data = [column.name for column in columns if column.name not in levels]
    found = client.create_read_session(
        TableBatchScanRequest(
            required_data_columns=data or [_some_column(table)],
            required_partition_columns=[column.name for column in columns if column.name in levels],
            required_partitions=[spec] if spec else [],
            split_options=SplitOptions(
                split_mode=SplitOptions.SplitMode.SIZE, split_number=split_bytes, cross_partition=False
            ),
        )
    )
    deadline = time.monotonic() + _WAIT_S
    while found.session_status == SessionStatus.INIT:
        if time.monotonic() > deadline:
            raise TransientError(f"maxcompute: {table.name}: read session {found.session_id} is not ready in time")
        time.sleep(_POLL_S)
        found = client.get_read_session(SessionRequest(session_id=found.session_id))
    if found.session_status != SessionStatus.NORMAL:
        raise RefusedError(f"maxcompute: {table.name}: the read session is {found.session_status}")
    return ReadSession(table, spec, found.session_id, int(found.split_count))


def _some_column(table: MaxTable) -> str:
    """What is asked for where only partition columns are wanted: an empty list would mean all columns."""
    return next((column.name for column in table.columns if not column.is_nested), table.columns[0].name)


def _client(service: MaxCompute, table: MaxTable, *, is_repeated: bool = False) -> Any:
    """The storage API; `is_repeated` where whoever asks tries again, so that the client must not."""
    from vector_assets.clients.maxcompute_rest import Storage, single

    rest = service.tunnel.tunnel_rest
    return Storage(service.odps, table.handle, service.tunnel, single(rest) if is_repeated else rest)


def read_split(
    service: MaxCompute, session: ReadSession, number: int, codec: StorageCodec, skip: int = 0
) -> Iterator[pa.RecordBatch]:
    """The rows of a split from its row `skip` on, by one request, which is not repeated; columns as in the session.

    Raises:
        TableModifiedError: the partition has changed since the session was opened.
        SessionEndedError: the session has expired.
        TransientError: the stream was cut; what was yielded is right.
    """
    from odps.apis.storage_api.storage_api import Compression, ReadRowsRequest

    client = service.ask(lambda: _client(service, session.table, is_repeated=True), session.place)
    how = Compression[codec] if codec else Compression.UNCOMPRESSED
    request = ReadRowsRequest(session_id=session.id, split_index=number, max_batch_rows=BATCH_ROWS, compression=how)
    stream = service.ask(lambda: client.read_rows_stream(request), session.place)
    try:
        with _arrow_errors(session):
            reader = service.ask(lambda: pa.ipc.open_stream(stream), session.place)
        while True:
            with _arrow_errors(session):
                batch = service.ask(lambda: _next(reader), session.place)
            if batch is None:
                return
            if skip >= batch.num_rows:
                skip -= batch.num_rows
                continue
            yield batch.slice(skip) if skip else batch
            skip = 0
    finally:
        stream.close()


def _next(reader: Any) -> pa.RecordBatch | None:
    try:
        return reader.read_next_batch()
    except StopIteration:
        return None


@contextmanager
def _arrow_errors(session: ReadSession) -> Iterator[None]:
    """A stream that ends in the middle of a batch was cut."""
    try:
        yield
    except (pa.ArrowInvalid, OSError) as error:
        raise TransientError(f"maxcompute: {session.place}: the stream was cut or damaged: {error}") from error
