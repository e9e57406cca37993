"""`vector-assets dead-letters edit`: another value beside a rejected record's own, tried before it is kept."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vector_assets.cli.output import JsonOption, PipelineArgument, YesOption, command, confirm, emit, say, usage
from vector_assets.engine.errors import ConfigError

if TYPE_CHECKING:
    from vector_assets.engine.dead_letters import DeadLetter
    from vector_assets.engine.session import Session


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(
        app,
        "vector-assets dead-letters edit car_info 17                       in $EDITOR",
        "vector-assets dead-letters edit car_info 17 --value-file mended.csv",
        "vector-assets dead-letters edit car_info 17 --set-value '17;red;{1,2,3}' --yes",
    )(edit)


def edit(
    pipeline: PipelineArgument,
    letter_id: Annotated[int, typer.Argument(metavar="ID", help="As `dead-letters list` shows it.")],
    *,
    value_file: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="The new value, byte for byte.")
    ] = None,
    set_value: Annotated[str | None, typer.Option(metavar="TEXT", help="The new value, as UTF-8.")] = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Keep another value beside a rejected record; `dead-letters replay` decodes the newest one.

    What the source held is never overwritten. The new value is decoded with today's script and the result is shown
    before it is kept.
    """
    if value_file is not None and set_value is not None:
        usage("give either --value-file or --set-value, or none of them for $EDITOR")
    from vector_assets.cli.declared import opened

    with opened(pipeline) as session:
        letter = _open_letter(session, letter_id)
        if value_file is not None:
            value = value_file.read_bytes()
        else:
            value = set_value.encode() if set_value is not None else _edited(letter)
        if value == letter.current:
            raise ConfigError(f"dead letter {letter_id}: the value is the same: nothing was kept")
        error = _tried(session, letter, value)
        said = f"still rejected: {error}" if error else "decoded; the target would decide"
        if not as_json:
            say(f"today: {said}")
        confirm(f"Keep this value beside dead letter {letter_id}?", is_confirmed=yes)
        number = session.ledger.dead_letters.edit(letter_id, value, now_ms=session.ledger.now_ms())
        session.ledger.record_event(pipeline, "edit", f"dead letter {letter_id}, edit {number}")
    if as_json:
        emit({"pipeline": pipeline, "id": letter_id, "edit": number, "error": error})
        return
    say(f"kept as edit {number}; `vector-assets dead-letters replay {pipeline} --id {letter_id}` lands it")


def _open_letter(session: "Session", letter_id: int) -> "DeadLetter":
    """The letter, if its value may be edited.

    Raises:
        ConfigError: it is another pipeline's, not open, or a row of a typed source.
    """
    import pyarrow as pa

    name = session.pipeline.name
    letter = session.ledger.dead_letters.get(letter_id)
    if letter is None or letter.pipeline != name or letter.target != session.pipeline.target:
        raise ConfigError(f"{name}: has no dead letter {letter_id}; `vector-assets dead-letters list {name}`")
    if letter.state != "open":
        raise ConfigError(f"{name}: dead letter {letter_id} is {letter.state}: only an open one can be edited")
    if pa.types.is_struct(session.pipeline.raw_schema.field("value").type):
        raise ConfigError(
            f"{name}: dead letter {letter_id} is a row of a typed source ({session.pipeline.source_connector}), kept in"
            " Arrow's binary form: it cannot be edited as text; mend it at its source"
        )
    return letter


def _edited(letter: "DeadLetter") -> bytes:
    """What the operator's editor makes of the value.

    Raises:
        ConfigError: the value is no text, or the editor was left without saving.
    """
    import click

    try:
        text = (letter.current or b"").decode()
    except UnicodeDecodeError:
        raise ConfigError(f"dead letter {letter.id}: its value is no UTF-8 text: use --value-file") from None
    changed: str | None = click.edit(text, extension=".txt")
    if changed is None:
        raise ConfigError(f"dead letter {letter.id}: the editor saved nothing: nothing was kept")
    # an editor ends the last line, whether the record did or not
    return (changed if text.endswith("\n") else changed.removesuffix("\n")).encode()


def _tried(session: "Session", letter: "DeadLetter", value: bytes) -> str | None:
    """Why today's code rejects the value; None when it does not."""
    from dataclasses import replace

    from vector_assets.engine.dead_letters import raw_records, splits_of

    tried = [replace(letter, edit=letter.edit + 1, edited=value)]
    with session.leased() as stages:
        raw = raw_records(tried, session.pipeline.raw_schema)
        rejected = stages.decode(raw, splits_of(tried)).rejected
    if rejected.num_rows == 0:
        return None
    return f"{rejected.column('stage')[0].as_py()}: {rejected.column('error')[0].as_py()}"
