"""File-cached mode: the changes of each partition and bucket go to a file first, and are sent when it is full."""

import tempfile
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa

from vector_assets.clients.maxcompute import MaxCompute
from vector_assets.clients.maxcompute_write import WriteSession
from vector_assets.sinks.maxcompute_options import MaxComputeSinkOptions
from vector_assets.sinks.maxcompute_parts import Change, Load, changes_of, send_change
from vector_assets.sinks.maxcompute_plan import Plan

Place = tuple[str, int, str, tuple[int, ...]]
"""Session, bucket, operation, places: what one file holds."""


class FileCache:
    """Files of one batch; `close` sends what is left and deletes them."""

    def __init__(self, service: MaxCompute, plan: Plan, options: MaxComputeSinkOptions) -> None:
        self._service, self._plan, self._options = service, plan, options
        self._folder = tempfile.TemporaryDirectory(prefix="vector-assets-buckets-")
        self._pool = ThreadPoolExecutor(options.file_cached_writers, thread_name_prefix="file")
        self._open: dict[Place, tuple[WriteSession, Path, pa.OSFile, pa.RecordBatchFileWriter]] = {}
        self._sending: list[Future[None]] = []
        self._count = 0

    def add(self, load: Load, session: WriteSession) -> None:
        """Write the changes of a part to files; full ones are sent beside."""
        for bucket, operation, places, rows in changes_of(self._plan, self._options, load, session):
            place = (session.id, bucket, operation, places)
            if place not in self._open:
                self._count += 1
                path = Path(self._folder.name) / f"{self._count}.arrow"
                file = pa.OSFile(str(path), "wb")
                self._open[place] = (session, path, file, pa.ipc.new_file(file, rows.schema))
            _, _, file, writer = self._open[place]
            writer.write_table(rows)
            if file.tell() >= self._options.file_cached_rolling:
                self._roll(place)

    def _roll(self, place: Place) -> None:
        session, path, file, writer = self._open.pop(place)
        writer.close()
        file.close()
        _, bucket, operation, places = place

        def send() -> None:
            with pa.memory_map(str(path)) as source:
                change: Change = (bucket, operation, places, pa.ipc.open_file(source).read_all())
                send_change(
                    self._service, self._plan, self._options, session, change, self._options.file_cached_retries
                )
            path.unlink()

        self._sending.append(self._pool.submit(send))

    def finish(self) -> None:
        """Send what is left; everything is in its sessions when this returns."""
        for place in list(self._open):
            self._roll(place)
        for sent in self._sending:
            sent.result()

    def close(self) -> None:
        """Stop sending and delete the files."""
        for _, _, file, writer in self._open.values():
            writer.close()
            file.close()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._folder.cleanup()
