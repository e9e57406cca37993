"""Leases: one writer per (pipeline, target), with a fence that every takeover raises.

A holder whose process is dead on this host is replaced at once. Any other holder is replaced when its heartbeat has
not moved for the time to live, measured on the challenger's own monotonic clock: clocks of two hosts are never
compared. The fence keeps a holder that wakes up later out of the ledger; the target's own compare-and-set keeps it out
of the target.
"""

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vector_assets.engine.errors import FatalError, FencedError, TransientError, VectorAssetsError
from vector_assets.engine.store import Store

log = logging.getLogger(__name__)
_POLL_SECONDS = 0.1


class LeaseHeldError(FatalError):
    """Somebody else holds the pipeline's lease, and kept it for as long as we waited."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write one (pipeline, target), as long as the fence is the newest."""

    pipeline: str
    target: str
    owner: str
    fence: int


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lease."""

    owner: str
    host: str
    pid: int
    pid_born: str
    fence: int
    beat: int

    @property
    def run_id(self) -> str:
        """The run it works for, as its session was told."""
        return self.owner.rpartition("/")[0]

    def __str__(self) -> str:
        return f"pid {self.pid} on {self.host} (fence {self.fence})"


def process_born(pid: int) -> str:
    """Start time of a process in the kernel's ticks: tells a reused pid apart; empty when it does not run."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]


class Leases:
    """Acquire, keep and give back leases."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def holder(self, pipeline: str, target: str) -> Holder | None:
        """Who holds the lease now, dead or alive."""
        row = self.store.row(
            "SELECT owner, host, pid, pid_born, fence, beat FROM leases WHERE pipeline = ? AND target = ?"
            " AND owner IS NOT NULL",
            (pipeline, target),
        )
        return Holder(**dict(row)) if row else None

    def is_held(self, pipeline: str, target: str) -> bool:
        """True while a live process on this host, or any process of another host, holds the lease."""
        holder = self.holder(pipeline, target)
        return holder is not None and not _is_dead(holder)

    @contextmanager
    def held(self, pipeline: str, target: str, *, ttl: float, wait: float, run_id: str = "") -> Iterator[Lease]:
        """Hold the lease for a run, with a heartbeat three times per `ttl`; given back at the end.

        Raises:
            LeaseHeldError: not free after `wait` seconds; the message names the holder.
        """
        lease = self.acquire(pipeline, target, ttl=ttl, wait=wait, run_id=run_id)
        stop = threading.Event()
        keeper = threading.Thread(target=self._keep, args=(lease, ttl / 3, stop), name="lease", daemon=True)
        keeper.start()
        try:
            yield lease
        finally:
            stop.set()
            keeper.join()
            self._give_back(lease)

    def _give_back(self, lease: Lease) -> None:
        try:
            self.release(lease)
        except TransientError as error:
            # it must not hide what ended the run; our process ends, or the heartbeat does
            log.warning("%s: the lease could not be given back: %s", lease.pipeline, error)

    def acquire(self, pipeline: str, target: str, *, ttl: float, wait: float, run_id: str = "") -> Lease:
        """Take the lease when it is free, its holder is dead, or its heartbeat stood still for `ttl` seconds."""
        deadline = time.monotonic() + wait
        seen: Holder | None = None
        seen_at = time.monotonic()
        while True:
            holder = self.holder(pipeline, target)
            now = time.monotonic()
            if holder is None or _is_dead(holder):
                lease = self._take(pipeline, target, holder, run_id)
                if lease:
                    return lease
            elif holder != seen:
                seen, seen_at = holder, now
            elif now - seen_at >= ttl:
                log.warning("%s: taking over the lease of %s: no heartbeat for %.0f s", pipeline, holder, ttl)
                lease = self._take(pipeline, target, holder, run_id)
                if lease:
                    return lease
            if now >= deadline:
                raise LeaseHeldError(f"{pipeline}: the lease is held by {holder}; waited {wait:.0f} s for it")
            time.sleep(_POLL_SECONDS)

    def _take(self, pipeline: str, target: str, instead_of: Holder | None, run_id: str) -> Lease | None:
        """The lease with the next fence, if its holder is still `instead_of`."""
        owner, pid = f"{run_id}/{uuid.uuid4().hex}", os.getpid()
        with self.store.transaction():
            self._make_row(pipeline, target)
            is_unchanged, seen = "owner IS NULL", ()  # type: str, tuple[object, ...]
            if instead_of is not None:
                is_unchanged, seen = "owner = ? AND beat = ?", (instead_of.owner, instead_of.beat)
            changed = self.store.change(
                "UPDATE leases SET owner = ?, host = ?, pid = ?, pid_born = ?, fence = fence + 1, beat = beat + 1"
                f" WHERE pipeline = ? AND target = ? AND {is_unchanged}",
                (owner, socket.gethostname(), pid, _birth(pid), pipeline, target, *seen),
            )
            if not changed:
                return None
            taken = self.holder(pipeline, target)
        if taken is None:
            raise FatalError(f"{pipeline}: the lease vanished while it was taken")
        return Lease(pipeline, target, owner, taken.fence)

    def _make_row(self, pipeline: str, target: str) -> None:
        self.store.change(
            "INSERT INTO leases (pipeline, target, fence, beat) VALUES (?, ?, 0, 0) ON CONFLICT DO NOTHING",
            (pipeline, target),
        )

    def raise_fence(self, pipeline: str, target: str, fence: int) -> None:
        """Make sure that the next lease has a higher fence than this one (a target may know it from a lost ledger)."""
        with self.store.transaction():
            self._make_row(pipeline, target)
            self.store.change(
                "UPDATE leases SET fence = ? WHERE pipeline = ? AND target = ? AND fence < ?",
                (fence, pipeline, target, fence),
            )

    def _keep(self, lease: Lease, interval: float, stop: threading.Event) -> None:
        while not stop.wait(interval):
            try:
                self.beat(lease)
            except TransientError as error:
                log.warning("%s: no heartbeat: %s", lease.pipeline, error)  # there is time for another before the ttl
            except VectorAssetsError as error:
                log.error("%s: %s", lease.pipeline, error)  # the run itself meets the fence and raises
                return

    def beat(self, lease: Lease) -> None:
        """Show that the holder lives.

        Raises:
            FencedError: the lease was taken over.
        """
        if not self.is_kept(lease):
            raise FencedError(f"{lease.pipeline}: the lease with fence {lease.fence} was taken over by another worker")

    def is_kept(self, lease: Lease) -> bool:
        """True while the lease is still its holder's; that it asks is a sign of life.

        Inside a transaction the answer holds until its end: the lease's row has been changed by it.
        """
        changed = self.store.change(
            "UPDATE leases SET beat = beat + 1 WHERE pipeline = ? AND target = ? AND owner = ?",
            (lease.pipeline, lease.target, lease.owner),
        )
        return changed > 0

    def release(self, lease: Lease) -> None:
        """Give the lease back, if it is still ours."""
        self.store.change(
            "UPDATE leases SET owner = NULL WHERE pipeline = ? AND target = ? AND owner = ?",
            (lease.pipeline, lease.target, lease.owner),
        )


def _birth(pid: int) -> str:
    """What a lease keeps of its holder's process: when it was born, and in which namespace its pid means something."""
    return f"{process_born(pid)} {_namespace()}".rstrip()


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _is_dead(holder: Holder) -> bool:
    born, _, namespace = holder.pid_born.partition(" ")
    # two containers may share a host's name: of the other's processes we know nothing
    is_here = holder.host == socket.gethostname() and namespace in {"", _namespace()}
    return is_here and process_born(holder.pid) != born
