"""Options of a MaxCompute dimension table."""

from pydantic import Field, field_validator

from vector_assets.clients.maxcompute_options import MaxComputeOptions
from vector_assets.clients.maxcompute_partitions import parse
from vector_assets.engine.lookup import NEVER_MS, CachePolicy, LookupOptions, parse_blackouts
from vector_assets.engine.options import Flag, OptionError


class MaxComputeLookupOptions(MaxComputeOptions, LookupOptions):
    """What a dimension table of connector `odps` may say."""

    partition: str | None = Field(None, min_length=1)
    """Which partitions are loaded: `ds=20180905`, `ds=2018****`, several one after the other, `max_pt()` or
    `max_two_pt()`, which are asked again at each reload."""
    cache: str | None = None
    """Cache policy: must be `ALL`, and be written out. All rows are loaded before the first lookup."""
    cache_size: int = Field(100_000, alias="cacheSize", ge=1)
    """Most rows in the cache; a table with more is an error, unless `cache.spill` is set."""
    cache_ttl_ms: int = Field(NEVER_MS, alias="cacheTTLMs", ge=1)
    """Milliseconds after which the cache is looked at again, and loaded again if the table has changed; by default
    never."""
    blackouts: str | None = Field(None, alias="cacheReloadTimeBlackList")
    """Periods in which the cache is not loaded again: `2017-10-24 14:00 -> 2017-10-24 15:00`, or for every day
    `14:00 -> 15:00` (over midnight too); several with commas; UTC."""
    max_load_retries: int = Field(10, alias="maxLoadRetries", ge=0)
    """Retries of the first load; when they are used up the run fails."""
    spill: Flag = Field(default=False, alias="cache.spill")
    """Whether a table of more than `cacheSize` rows is joined from disk instead of being an error (not in Flink)."""

    @field_validator("partition")
    @classmethod
    def _is_partition(cls, text: str | None) -> str | None:
        if text is not None:
            parse(text)
        return text

    @field_validator("blackouts")
    @classmethod
    def _are_periods(cls, text: str | None) -> str | None:
        if text is not None:
            parse_blackouts(text)
        return text

    def check_cache(self) -> None:
        """Make sure that the cache policy is written out.

        Raises:
            OptionError: it is not, or is another one.
        """
        if self.cache is None:
            reason = "is required: dimension tables require cache=ALL, explicitly declared in the DDL statement"
            raise OptionError("cache", reason)
        if self.cache.upper() != "ALL":
            raise OptionError("cache", f"found {self.cache!r}: dimension tables require cache=ALL; known values: ALL")

    def origin(self) -> tuple[str, ...]:
        """As the source of the same table has it."""
        return ("maxcompute", *self.full_name.split("."))

    def shown_name(self) -> str:
        """`project.table`, or `project.schema.table`."""
        return self.full_name

    def policy(self) -> CachePolicy:
        """How its rows are kept; neither keys nor ways to the table are part of its identity."""
        return CachePolicy(
            max_rows=self.cache_size,
            ttl_ms=self.cache_ttl_ms,
            retries=self.max_load_retries,
            spill=self.spill,
            blackouts=parse_blackouts(self.blackouts) if self.blackouts is not None else (),
            identity=("odps", self.endpoint, self.full_name, self.partition or ""),
        )
