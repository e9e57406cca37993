"""Dagster's own SQLite storage, whose errors name the file they are about.

`dagster.yaml` names it, so that every process of Dagster has it: the UI's, the daemon's, those of runs. SQLite itself
says "disk I/O error" or "database or disk is full" and leaves open of which of the dozen files under DAGSTER_HOME.

The storage is that of dagster 1.13, from its private module: Dagster offers no public class to build on.
"""

from typing import Any, Self

from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData
from sqlalchemy import event
from sqlalchemy.engine import Engine, ExceptionContext
from sqlalchemy.exc import StatementError


class NamedSqliteStorage(DagsterSqliteStorage):
    """Runs, events and schedules in SQLite files below `base_dir`."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        if not event.contains(Engine, "handle_error", _name_file):
            event.listen(Engine, "handle_error", _name_file)
        super().__init__(base_dir, inst_data)

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Any) -> Self:
        """As Dagster asks for it; `base_dir` is the folder."""
        return cls.from_local(inst_data=inst_data, **config_value)


def _name_file(context: ExceptionContext) -> None:
    error = context.sqlalchemy_exception
    if isinstance(error, StatementError) and context.engine is not None and context.engine.dialect.name == "sqlite":
        error.add_detail(f"file: {context.engine.url.database}")
