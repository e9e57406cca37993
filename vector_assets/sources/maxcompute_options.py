"""Options of a source table of connector `odps`."""

from typing import Annotated

from pydantic import BeforeValidator, Field, field_validator

from vector_assets.clients.maxcompute_options import upper
from vector_assets.clients.maxcompute_partitions import parse
from vector_assets.clients.maxcompute_storage import StorageCodec
from vector_assets.engine.core import Position
from vector_assets.engine.options import Flag, MemorySize, SourceOptions
from vector_assets.sources.maxcompute_incremental_options import BATCH_ONLY, IncrementalOptions
from vector_assets.sources.maxcompute_tokens import Place

_ARROW_ONLY = BATCH_ONLY[1:]


class MaxComputeSourceOptions(IncrementalOptions, SourceOptions):
    """What a source table of connector `odps` may say."""

    partition: str | None = Field(None, min_length=1)
    """Which partitions are read: `ds=20180905`, `yyyy=2018,MM=09`, `ds=2018****`, several one after the other,
    `max_pt()` or `max_two_pt()`."""
    max_partition_count: int = Field(100, alias="maxPartitionCount", ge=1)
    """Most partitions that are read; more are an error before any of them is."""
    use_arrow: Flag = Field(default=False, alias="useArrow")
    """Read by the storage API, in splits, instead of the tunnel."""
    split_size: MemorySize = Field(256 << 20, alias="splitSize", ge=1)
    """With useArrow: bytes of a split."""
    compress_codec: Annotated[StorageCodec, BeforeValidator(upper)] = Field("", alias="compressCodec")
    """With useArrow: codec of the Arrow data: empty for none, ZSTD or LZ4_FRAME."""
    dynamic_load_balance: Flag = Field(default=False, alias="dynamicLoadBalance")
    """With useArrow: threads take the next split from one queue; otherwise each has every n-th split."""

    @field_validator("partition")
    @classmethod
    def _is_partition(cls, text: str | None) -> str | None:
        if text is not None:
            parse(text)
        return text

    def reports(self) -> tuple[str, ...]:
        """What is superseded or depends on an option that is not set."""
        fields = type(self).model_fields
        given = {fields[name].alias or name for name in self.model_fields_set}
        found = list(super().reports())
        if not self.use_arrow:
            why = "useArrow is not true"
            found += [f"option {name!r} has no effect: {why}" for name in _ARROW_ONLY if name in given]
        elif "compressAlgorithm" in given:
            found.append("option 'compressAlgorithm' has no effect: with useArrow compressCodec says the codec")
        return tuple(found)

    def origin(self) -> tuple[str, ...]:
        """`("maxcompute", project, table)`, with the schema in projects of three tiers."""
        return ("maxcompute", *self.full_name.split("."))

    def start_option(self) -> str:
        """Which partitions are read; a startPartition may be moved, for every partition has a position of its own."""
        if self.start_partition is not None:
            return "startPartition"
        return f"partition {self.partition}" if self.partition else "the whole table"

    def is_finished(self, position: Position) -> bool:
        """True when every partition has been read to its end."""
        return self.start_partition is None and all(Place.of(token).is_done for token in position.values())
