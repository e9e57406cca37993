"""`vector-assets explain`: where a record went, and where a row came from."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vector_assets.cli.output import (
    JsonOption,
    PipelineArgument,
    command,
    emit,
    heading,
    moment,
    say,
    show_pairs,
    show_table,
    usage,
)

if TYPE_CHECKING:
    from vector_assets.engine.explain import Change, KeyStory, RecordStory


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(
        app,
        "vector-assets explain car_info --offset 0:1234       what became of this record",
        """vector-assets explain car_info --key '{"id": 5}'    where this row comes from""",
    )(explain)


def explain(
    pipeline: PipelineArgument,
    *,
    offset: Annotated[
        str | None, typer.Option(metavar="PARTITION:OFFSET", help="A record of the source.", show_default=False)
    ] = None,
    topic: Annotated[str | None, typer.Option(help="Of which topic, where the pipeline reads several.")] = None,
    key: Annotated[str | None, typer.Option(metavar="JSON", help="A row of the target.", show_default=False)] = None,
    as_json: JsonOption = False,
) -> None:
    """Tell what became of a record, or where a row of the target comes from."""
    if (offset is None) == (key is None):
        usage("give either --offset PARTITION:OFFSET or --key JSON")
    from vector_assets.cli.declared import opened
    from vector_assets.engine import explain as engine

    with opened(pipeline) as session:
        if offset is not None:
            name, _, number = offset.rpartition(":")
            if not name or not number.isdecimal():
                usage(f"--offset {offset}: want PARTITION:OFFSET, for example 0:1234")
            stories = engine.explain_offset(session, engine.split_named(session, name, topic), int(number))
            _show_stories(stories, as_json=as_json)
        else:
            _show_key(engine.explain_key(session, _key(key or "")), as_json=as_json)


def _key(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        usage(f"--key: not JSON: {error}")
    if not isinstance(found, dict):
        usage('--key: want an object of the key\'s columns, for example {"id": 5}')
    return found


def _show_stories(stories: "Sequence[RecordStory]", *, as_json: bool) -> None:
    if as_json:
        emit([asdict(story) for story in stories])
        return
    for story in stories:
        show_pairs(
            [
                ("record", f"{story.split} offset {story.offset}"),
                ("became", f"{story.status.replace('_', ' ')}: {story.detail}"),
                ("batch", story.batch),
                ("hour", story.hour),
                ("run", story.run_id),
                ("code", story.code_version),
                ("written", moment(story.timestamp_ms)),
            ]
        )
        for letter, state, error in story.letters:
            say(f"dead letter {letter} ({state}): {error}")
        for row in story.rows:
            heading(f"{row.fate.replace('_', ' ')}: {json.dumps(row.key, ensure_ascii=False)}")
            if row.by is not None:
                say(f"gave way to {row.by.origin} (batch {row.by.batch}, {row.by.batch_kind})")
            elif row.fate == "conflict":
                say("gave way to a row of a batch that is expired, or of somebody else")
            if row.row is not None:
                say("in the target now:", "dim")
                show_pairs(list(row.row.items()))


def _show_key(story: "KeyStory", *, as_json: bool) -> None:
    if as_json:
        emit(asdict(story))
        return
    if not story.is_read:
        say("rows of this target cannot be looked up; what was handed to it:")
    elif story.row is None:
        say("the target has no such row")
    else:
        show_pairs(list(story.row.items()))
    if story.expired_up_to:
        say(f"batches up to {story.expired_up_to} are expired: whether they wrote this key is not known", "dim")
    if not story.changes:
        say("no batch of this pipeline that is kept wrote this key")
        return
    heading("changes, newest first (* made the row)")
    show_table(
        ("", "change", "batch", "kind", "hour", "split", "offset", "run", "code", "done"),
        [_cells(change) for change in story.changes],
        right=("batch", "offset"),
    )
    if story.more:
        say("older ones are left out", "dim")


def _cells(change: "Change") -> tuple[Any, ...]:
    origin = change.origin
    return (
        "*" if change.is_owner else "", change.kind, str(change.batch), change.batch_kind, origin.hour, origin.split,
        str(origin.offset), change.run_id, change.code_version, moment(change.done_ms),
    )  # fmt: skip
