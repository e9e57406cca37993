"""Options of an incremental source table of connector `odps`, and which Dagster partition its rows belong to."""

from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from vector_assets.clients.maxcompute_options import MaxComputeOptions, upper
from vector_assets.engine.core import Position, Split
from vector_assets.engine.errors import ConfigError
from vector_assets.engine.options import Duration
from vector_assets.sources.maxcompute_start import FORM, key_of, parse, spec_of_key, spelled, unpadded
from vector_assets.sources.maxcompute_tokens import Place, spec_of, split_of

BATCH_ONLY = ("useArrow", "splitSize", "compressCodec", "dynamicLoadBalance")
"""Options of batch reading, which an incremental source refuses."""

_QUIET, _MARKER, _DONE = (f"vector-assets.partition.{name}" for name in ("quiet", "marker", "done-table"))


class IncrementalOptions(MaxComputeOptions):
    """What only an incremental source table may say, beside what every table may."""

    start_partition: str | None = Field(None, alias="startPartition", min_length=1)
    """Follow the table: read this partition and those after it in the alphabet, such as `yyyy=2018,MM=09,dd=05`, and
    every one that comes later."""
    subscribe_interval: int = Field(30, alias="subscribeIntervalInSec", ge=1)
    """With startPartition: seconds between two looks for new partitions, of the sensor and of the continuous mode."""
    modified_table_operation: Annotated[Literal["NONE", "SKIP"], BeforeValidator(upper)] = Field(
        "NONE", alias="modifiedTableOperation"
    )
    """With startPartition: when a partition is modified or dropped while it is read. `NONE` stops, and says which
    startPartition passes over it; `SKIP` leaves out its unread rows. What was read is kept."""
    quiet: Duration = Field(timedelta(seconds=60), alias="vector-assets.partition.quiet", ge=timedelta(0))
    """With startPartition: a partition is complete when neither its rows nor its time have changed for so long."""
    marker: str | None = Field(None, alias="vector-assets.partition.marker", min_length=1)
    """With startPartition: a partition is complete when this one exists, such as `ds={ds}.done` or `ds={ds},hh=_DONE`;
    marks are not read."""
    done_table: str | None = Field(None, alias="vector-assets.partition.done-table", min_length=1)
    """With startPartition: a partition is complete when this table of the same project has one of the same spec."""

    @field_validator("start_partition", "marker")
    @classmethod
    def _is_spec(cls, text: str | None) -> str | None:
        if text is not None:
            parse(text)
        return text

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.start_partition is not None:
            batch = [name for name in BATCH_ONLY if name in self._given()]
            if batch:
                raise ValueError(
                    f"option {batch[0]!r} is for batch reading: leave it out, or name the partitions by 'partition'"
                    " instead of 'startPartition'"
                )
        if self.marker is not None and self.done_table is not None:
            raise ValueError(f"options {_MARKER!r} and {_DONE!r}: want one of them")
        return self

    def _given(self) -> set[str]:
        fields = type(self).model_fields
        return {fields[name].alias or name for name in self.model_fields_set}

    @property
    def quiet_seconds(self) -> float:
        """How long nothing of a complete partition has changed."""
        return self.quiet.total_seconds()

    def reports(self) -> tuple[str, ...]:
        """What is superseded or belongs to the other mode, and a start that zeros are missing from."""
        given, found = self._given(), list(super().reports())
        if self.start_partition is None:
            names = ("subscribeIntervalInSec", "modifiedTableOperation", _QUIET, _MARKER, _DONE)
            return (*found, *(f"option {n!r} has no effect: startPartition is not given" for n in names if n in given))
        if self.partition is not None:
            found.append("option 'partition' has no effect: startPartition is given, by which it is ignored")
        if "maxPartitionCount" in given:
            found.append(
                "option 'maxPartitionCount' has no effect: startPartition is given, and partitions are read one by one"
            )
        if _QUIET in given and (self.marker or self.done_table):
            found.append(f"option {_QUIET!r} has no effect: a mark says when a partition is complete")
        start = parse(self.start_partition)
        if corrected := unpadded(start):
            found.append(
                f"option 'startPartition' is {spelled(start)!r}: specs are compared as text, where 10 sorts before 9;"
                f" if the table's values have two digits, write {corrected!r}"
            )
        return tuple(found)

    @property
    def has_partitions(self) -> bool:
        """True unless it reads a whole table."""
        return self.start_partition is not None or self.partition is not None

    def partition_of(self, split: Split) -> str:
        """The spec, quoted where Dagster's grammar wants it."""
        return key_of(spec_of(split) or "")

    def partition_key(self, text: str) -> str:
        """`ds=20180905`, `yyyy=2018/MM=09` or `yyyy=2018,MM=09` as a key.

        Raises:
            ConfigError: it is none.
        """
        try:
            return key_of("/".join(f"{name}={value}" for name, value in parse(spec_of_key(text))))
        except ValueError as error:
            raise ConfigError(f"partition {text!r}: {error}; known form: {FORM}") from None

    def is_read(self, key: str, position: Position) -> bool:
        """True when the position is at the partition's end.

        Which partitions the option `partition` means is settled by the first position there is.
        """
        token = position.get(split_of(self.full_name, spec_of_key(key)))
        if token is None and self.start_partition is None:
            return bool(position)
        return Place.of(token).is_done

    def poll_seconds(self) -> float | None:
        """The option subscribeIntervalInSec."""
        return None if self.start_partition is None else float(self.subscribe_interval)
