"""A source in memory whose splits are partitions of its own: `t/ds=1`; those in `writing` are not complete yet."""

from dataclasses import dataclass, field, replace

from tests.engine.memory import MemoryOptions, MemorySource, World
from vector_assets.engine.abilities import SourcePartition
from vector_assets.engine.core import BatchLimit, Position, Span
from vector_assets.engine.errors import ConfigError
from vector_assets.engine.pipeline import Pipeline


class PartitionedOptions(MemoryOptions):
    """The table `t`; a partition of two records is read when the position says 2."""

    @property
    def has_partitions(self) -> bool:
        return True

    def partition_of(self, split: str) -> str:
        return split.removeprefix("t/")

    def partition_key(self, text: str) -> str:
        if not text.startswith("ds="):
            raise ConfigError(f"partition {text!r}: want ds=<value>")
        return text

    def is_read(self, key: str, position: Position) -> bool:
        return position.get(f"t/{key}", 0) >= 2


@dataclass
class PartitionedSource(MemorySource):
    """Partitions of two records each, read one after the other."""

    writing: set[str] = field(default_factory=set)

    def start(self) -> Position:
        return {}

    def frontier(self) -> Position:
        return {split: token for each in self.partitions() for split, token in each.frontier.items()}

    def partitions(self) -> tuple[SourcePartition, ...]:
        return tuple(
            SourcePartition(split.removeprefix("t/"), {}, "is still being written", rows=len(self.splits[split]))
            if split in self.writing
            else SourcePartition(split.removeprefix("t/"), {split: len(self.splits[split])}, rows=2, modified_ms=1)
            for split in sorted(self.splits)
        )

    def newest(self, partitions: tuple[SourcePartition, ...]) -> SourcePartition | None:
        return partitions[-1] if partitions else None

    def plan(self, start: Position, limit: BatchLimit) -> Span | None:
        until = self.frontier() if limit.until is None else limit.until
        for split in sorted(until):
            begin = start.get(split, 0)
            if begin < until[split]:
                only = {**dict.fromkeys(self.splits, 0), split: until[split]}
                return MemorySource.plan(self, start, replace(limit, until=only))
        return None


@dataclass
class PartitionedWorld(World):
    """A world over such a source."""

    def pipeline(self) -> Pipeline:
        return replace(World.pipeline(self), source_options=PartitionedOptions())
