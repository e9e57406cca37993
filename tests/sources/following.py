"""A MaxCompute table that a test fills, and a source that follows it."""

from typing import Any

from tests.fix_maxcompute import MaxCompute
from vector_assets.engine.schema import Column, LogicalType, Table
from vector_assets.sources.maxcompute import MaxComputeSource, MaxComputeSourceOptions

DECLARED = Table("visits", (Column("id", LogicalType("BIGINT")), Column("name", LogicalType("VARCHAR"))))


class Followed:
    """A table `(id bigint, name string)` with the partition columns `levels`."""

    def __init__(self, server: MaxCompute, levels: str = "ds string") -> None:
        self.server = server
        self.levels = [level.split()[0] for level in levels.split(",")]
        self.name = server.table("id bigint, name string", f"PARTITIONED BY ({levels})").name

    def spec(self, *values: str) -> str:
        return ",".join(f"{name}='{value}'" for name, value in zip(self.levels, values, strict=True))

    def add(self, *values: str, ids: Any = range(3)) -> None:
        """Rows into a partition, which is made if need be."""
        table = self.server.odps.get_table(self.name)
        with table.open_writer(partition=self.spec(*values), create_partition=True) as writer:
            writer.write([[number, f"n{number}"] for number in ids])

    def drop(self, *values: str) -> None:
        self.server.sql(f"ALTER TABLE {self.name} DROP PARTITION ({self.spec(*values)})")

    def options(self, start: str = "ds=20180901", **more: str) -> MaxComputeSourceOptions:
        """Options of a source of it; a partition is complete at once unless `quiet` says otherwise."""
        service = self.server.service
        given = {
            "connector": "odps", "endpoint": service.endpoint, "project": "local", "tableName": self.name,
            "accessId": service.access_id, "accessKey": service.access_key, "startPartition": start,
            "vector-assets.partition.quiet": "0 s", "sleepMillis": "10",
        } | {name.replace("__", "."): value for name, value in more.items()}  # fmt: skip
        return MaxComputeSourceOptions.parse(given, "connector odps")

    def source(self, start: str = "ds=20180901", declared: Table = DECLARED, **more: str) -> MaxComputeSource:
        return MaxComputeSource(self.options(start, **more), declared, pipeline="visits")


def states(source: MaxComputeSource) -> dict[str, str | None]:
    """By key: why a partition is not read."""
    return {each.key: each.waits for each in source.partitions()}
