"""What a change of a pipeline's columns asks of its target."""

from collections.abc import Sequence
from dataclasses import replace

from vector_assets.engine.abilities import Alterable, Evolvable, Following
from vector_assets.engine.core import Decoder, SchemaChange, Sink, Transform
from vector_assets.engine.errors import ConfigError, FatalError, Place, PlanError
from vector_assets.engine.pipeline import Pipeline
from vector_assets.engine.schema import Column, ColumnChange, Table

_DESTRUCTIVE = frozenset({"drop", "rename"})


def check_following(transforms: Sequence[Transform], place: Place | None = None) -> None:
    """Make sure that transforms follow the columns of the tables.

    Raises:
        ConfigError: one does not.
    """
    fixed = [type(each).__name__ for each in transforms if not isinstance(each, Following)]
    if fixed:
        raise ConfigError(
            f"columns follow those of the source tables, and {', '.join(fixed)} has fixed ones: leave it out", place
        )


def following(declared: Pipeline, decoder: Decoder, columns: Sequence[Column]) -> Pipeline:
    """The pipeline with another decoder, whose columns are `columns`, and transforms that follow it.

    Raises:
        PlanError: a transform cannot do without a column.
    """
    given = tuple(column for column, _ in declared.metadata)
    out: tuple[Column, ...] = (*columns, *given)
    transforms: list[Transform] = []
    for each in declared.transforms:
        assert isinstance(each, Following), "checked when the session was opened"
        follower = each.following(out)
        assert isinstance(follower, Following)
        transforms.append(follower)
        out = follower.columns
    names = [column.name.lower() for column in out]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise PlanError(f"column {', '.join(twice)} would be there twice")
    comments = {column.name: column.comment for column in declared.sink_table.columns}
    table = replace(
        declared.sink_table,
        columns=tuple(replace(each, comment=each.comment or comments.get(each.name)) for each in out),
    )
    return replace(declared, decoder=decoder, transforms=tuple(transforms), sink_table=table, schema=table.schema)


def with_key(pipeline: Pipeline, renamed: dict[str, str]) -> Pipeline:
    """The pipeline whose key has the names that its columns have now; `renamed` are the old names' new ones."""
    table = pipeline.sink_table
    names = {column.name for column in table.columns}
    key = tuple(name if name in names else renamed.get(name, name) for name in table.primary_key)
    return replace(pipeline, sink_table=replace(table, primary_key=key))


def changes_between(before: Table, after: Table, renamed: tuple[str, str] | None) -> list[ColumnChange]:
    """What makes the columns of `before` those of `after`; a rename is one only where both sides have it so."""
    found: list[ColumnChange] = []
    known = {column.name: column for column in before.columns}
    wanted = {column.name: column for column in after.columns}
    if renamed and renamed[0] in known and renamed[0] not in wanted and renamed[1] not in known:
        old, new = renamed
        if new in wanted:
            found.append(ColumnChange("rename", wanted[new], old))
            known[new] = replace(known.pop(old), name=new)
    found += [ColumnChange("drop", column) for name, column in known.items() if name not in wanted]
    for name, column in wanted.items():
        if name not in known:
            found.append(ColumnChange("add", replace(column, type=replace(column.type, nullable=True))))
        elif known[name].type != column.type:
            found.append(ColumnChange("type", column))
    return found


def is_destructive(changes: Sequence[ColumnChange]) -> bool:
    """True when the changes, made a second time after others, could take away what the others gave."""
    return any(change.kind in _DESTRUCTIVE for change in changes)


def make(sink: Sink, changes: Sequence[ColumnChange], after: Pipeline) -> None:
    """Ask the target for the changes.

    Raises:
        PlanError: it cannot make them, or the sink cannot ask for them.
    """
    if isinstance(sink, Alterable):
        sink.alter(changes)
        return
    unable = [change for change in changes if change.kind in _DESTRUCTIVE or not isinstance(sink, Evolvable)]
    if unable:
        raise PlanError(f"{type(sink).__name__} cannot change its target: {'; '.join(map(str, unable))}")
    assert isinstance(sink, Evolvable)
    sink.evolve(after.schema)


def refused(pipeline: str, want: SchemaChange, reason: str) -> FatalError:
    """Why the pipeline stops at a change that its target must make, and what can be done."""
    return FatalError(
        f"{pipeline}: {want.what}: the target refuses the change: {reason}. Nothing of this batch was written; change"
        " the target by hand and run again, or set schema.change.behavior to try_evolve, which goes on without the"
        " change, or to ignore"
    )
