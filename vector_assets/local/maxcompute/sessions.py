"""Sessions of the tunnel and the storage API: kept over restarts, expired after a time."""

import shutil
import threading
import time
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from vector_assets.local.maxcompute.refusal import Refusal
from vector_assets.local.maxcompute.store import Store

TTL_S = 24 * 3600.0
"""The service's sessions live for a day."""

OPEN, CLOSED, ABORTED = "open", "closed", "aborted"
_KEPT_S = 2 * TTL_S
"""How long an expired session can still be asked about."""

_UNKNOWN = {
    "download": "NoSuchDownload",
    "upload": "NoSuchUpload",
    "stream": "StreamSessionNotFound",
    "upsert": "UpsertSessionNotFound",
}


@dataclass
class Session:
    """One session. `body` is what its kind keeps; `table` and `values` are its place."""

    id: str
    kind: str
    table: int
    values: list[str]
    expires: float
    state: str = OPEN
    body: dict[str, Any] = field(default_factory=dict)

    @property
    def has_expired(self) -> bool:
        """True after its end, unless it was closed before."""
        return self.state == OPEN and time.time() >= self.expires

    @property
    def key(self) -> tuple[str, ...]:
        """The values of its partition."""
        return tuple(self.values)


class Sessions:
    """All sessions; blocks that were sent lie in a folder per session until it closes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._folder = store.folder / "sessions"
        self._folder.mkdir(exist_ok=True)
        self.ttl_s = TTL_S
        self._lock = threading.Lock()
        self._found = {key: Session(**body) for key, body in store.documents("session").items()}
        for session in [each for each in self._found.values() if time.time() > each.expires + _KEPT_S]:
            self._forget(session)

    def open(self, kind: str, table: int, values: tuple[str, ...], body: dict[str, Any]) -> Session:
        """A new session."""
        session = Session(uuid.uuid4().hex, kind, table, list(values), time.time() + self.ttl_s, OPEN, body)
        with self._lock:
            self._found[session.id] = session
        self.save(session)
        return session

    def find(self, kind: str, number: str, table: int) -> Session:
        """The session of a table.

        Raises:
            Refusal: there is none.
        """
        session = self._found.get(number)
        if session is None or session.kind != kind or session.table != table:
            code = _UNKNOWN.get(kind, "NoSuchSession")
            raise Refusal(404, code, f"The specified {kind} id does not exist: {number}")
        return session

    def usable(self, kind: str, number: str, table: int) -> Session:
        """The session, if data may go through it.

        Raises:
            Refusal: there is none, or it has expired, closed or been given up.
        """
        session = self.find(kind, number, table)
        if session.has_expired or session.state != OPEN:
            state = "expired" if session.has_expired else session.state
            raise Refusal(
                409, "StatusConflict", f"The {kind} session {number} is {state}: the operation needs an open one"
            )
        return session

    def save(self, session: Session) -> None:
        """Keep its changes."""
        self._store.put("session", session.id, asdict(session))

    def finish(self, session: Session, state: str) -> None:
        """Close or give up; its blocks are deleted by `clean`."""
        session.state = state
        self.save(session)

    def reopened(self, session: Session) -> None:
        """What a transaction that failed did to the session is undone."""
        session.state = OPEN

    def clean(self, session: Session) -> None:
        """Delete its blocks."""
        shutil.rmtree(self._folder / session.id, ignore_errors=True)

    def expire(self, number: str | None = None) -> int:
        """End one session, or all open ones, now; how many."""
        chosen = [each for each in self._found.values() if each.state == OPEN and number in {None, each.id}]
        for session in chosen:
            session.expires = time.time()
            self.save(session)
        return len(chosen)

    def put_block(self, session: Session, name: str, rows: pa.Table) -> None:
        """Write a block over the one of its name there may be."""
        folder = self._folder / session.id
        folder.mkdir(exist_ok=True)
        draft = folder / f"{name}.{uuid.uuid4().hex}.draft"
        with pa.OSFile(str(draft), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
            writer.write_table(rows)
        draft.replace(folder / f"{name}.arrow")

    def blocks(self, session: Session) -> list[str]:
        """Names of the blocks, as numbers ascending."""
        return sorted((path.stem for path in self._paths(session)), key=lambda name: (len(name), name))

    def block(self, session: Session, name: str) -> pa.Table:
        """The rows of a block."""
        with pa.memory_map(str(self._folder / session.id / f"{name}.arrow")) as source:
            return pa.ipc.open_file(source).read_all()

    def _paths(self, session: Session) -> list[Path]:
        return list((self._folder / session.id).glob("*.arrow"))

    def _forget(self, session: Session) -> None:
        self.clean(session)
        del self._found[session.id]
        self._store.delete("session", session.id)
