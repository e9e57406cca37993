"""Partitions as people write them: `day(ts), bucket(16, id), region`."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyiceberg.partitioning import PartitionSpec
    from pyiceberg.schema import Schema
    from pyiceberg.transforms import Transform

TIMES = ("year", "month", "day", "hour")
SIZED = ("bucket", "truncate")
TRANSFORMS = (*TIMES, *SIZED, "identity")
"""Transforms by Iceberg's names; the plural of a time (Spark's `days`) is understood too."""

_FIELD = re.compile(r"\s*(?:(\w+)\s*\(\s*(?:(\d+)\s*,\s*)?([^(),]+?)\s*(?:,\s*(\d+)\s*)?\)|([^(),]+?))\s*(?:,|$)")


@dataclass(frozen=True, slots=True)
class PartitionField:
    """One field: a transform of a column; `size` of bucket and truncate."""

    transform: str
    column: str
    size: int | None = None

    @property
    def name(self) -> str:
        """Its name in the table, as Spark and Flink call it."""
        return self.column if self.transform == "identity" else f"{self.column}_{_SUFFIX.get(self.transform, '')}"

    def __str__(self) -> str:
        if self.transform == "identity":
            return self.column
        return f"{self.transform}({f'{self.size}, ' if self.size else ''}{self.column})"

    def transformation(self) -> "Transform":  # type: ignore[type-arg]
        """Pyiceberg's transform."""
        from pyiceberg.transforms import parse_transform

        return parse_transform(f"{self.transform}[{self.size}]" if self.size else self.transform)


_SUFFIX = {**{time: time for time in TIMES}, "bucket": "bucket", "truncate": "trunc"}


def parse_partition(text: str) -> tuple[PartitionField, ...]:
    """The fields of a partition option.

    Raises:
        ValueError: the text is none, a transform is unknown, or a size is missing or too much.
    """
    fields, at = [], 0
    while at < len(text.rstrip()):
        match = _FIELD.match(text, at)
        if match is None:
            raise ValueError(
                f"want columns or transforms such as 'day(ts), bucket(16, id)', found {text[at:].strip()!r}"
            )
        fields.append(_field(match))
        at = match.end()
    if len({field.name for field in fields}) < len(fields):
        raise ValueError("a partition field is named twice")
    return tuple(fields)


def _field(match: re.Match[str]) -> PartitionField:
    written, before, column, after, plain = match.groups()
    if plain:
        return PartitionField("identity", plain)
    transform = written.lower().removesuffix("s") if written.lower().removesuffix("s") in TIMES else written.lower()
    if transform not in TRANSFORMS:
        raise ValueError(f"unknown transform {written!r}; known: {', '.join(TRANSFORMS)}")
    size = before or after
    if (transform in SIZED) != (size is not None) or size == "0":
        wanted = f"{transform}(16, column)" if transform in SIZED else f"{transform}(column)"
        raise ValueError(f"want {wanted}, found {match[0].strip().rstrip(',')!r}")
    return PartitionField(transform, column, int(size) if size else None)


def spec_of(fields: tuple[PartitionField, ...], schema: "Schema") -> "PartitionSpec":
    """The partition spec of a new table.

    Raises:
        ValueError: no such column, or its type does not take the transform.
    """
    from pyiceberg.partitioning import PARTITION_FIELD_ID_START, PartitionSpec
    from pyiceberg.partitioning import PartitionField as Field

    made = []
    for number, field in enumerate(fields):
        if field.column not in schema.column_names:
            raise ValueError(f"partition {field}: no column {field.column}; known: {', '.join(schema.column_names)}")
        source, transform = schema.find_field(field.column), field.transformation()
        if not transform.can_transform(source.field_type):
            raise ValueError(f"partition {field}: column {field.column} is {source.field_type}")
        made.append(Field(source.field_id, PARTITION_FIELD_ID_START + number, transform, field.name))
    return PartitionSpec(*made)
