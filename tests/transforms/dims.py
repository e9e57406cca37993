"""A dimension table in memory, whose clock, rows and failures a test sets, and a cache over it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from vector_assets.engine.lookup import NEVER_MS, CachePolicy, Part, Snapshot
from vector_assets.transforms.lookup_cache import LookupCache

START = 1_800_000_000.0


@dataclass
class Dimension:
    """What the connector would reach; `fails` is raised, first to last, by the next looks."""

    rows: pa.Table
    name: str = "ds=1"
    modified: int = 0
    counted: bool = True
    looks: int = 0
    loads: int = 0
    fails: list[Exception] = field(default_factory=list)
    now: float = START
    chunk: int = 4
    slept: list[float] = field(default_factory=list)

    def put(self, rows: pa.Table, name: str | None = None) -> None:
        """Other rows from now on."""
        self.rows, self.modified, self.name = rows, self.modified + 1, name or self.name

    def opened(self) -> "Dimension":
        return self

    def snapshot(self) -> Snapshot:
        self.looks += 1
        if self.fails:
            raise self.fails.pop(0)
        return Snapshot((Part(self.name, int(START * 1000) - 3_600_000 + 1000 * self.modified),))

    def count(self, snapshot: Snapshot) -> int | None:
        return self.rows.num_rows if self.counted else None

    def load(self, snapshot: Snapshot) -> Iterator[pa.RecordBatch]:
        self.loads += 1
        yield from self.rows.to_batches(max_chunksize=self.chunk)

    def close(self) -> None:
        pass

    def cache(self, key: tuple[str, ...] = (), tree: str = "tree", **policy: Any) -> LookupCache:
        """A cache of a process of its own."""
        made = CachePolicy(
            **{
                "max_rows": 100,
                "ttl_ms": NEVER_MS,
                "retries": 10,
                "spill": False,
                "blackouts": (),
                "identity": ("test", "dim"),
                **policy,
            }
        )
        return LookupCache(
            "p.dim",
            self.opened,
            self.rows.schema,
            key,
            made,
            clock=lambda: self.now,
            sleep=self.slept.append,
            tree=tree,
        )


def files(home: Path) -> list[str]:
    """Suffixes of what lies in the only cache folder."""
    (folder,) = (home / "cache" / "lookup").iterdir()
    return sorted(path.name for path in folder.iterdir())
