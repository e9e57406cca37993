"""`vector-assets dead-letters`: rejected records listed, shown, replayed and purged."""

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vector_assets.cli.output import (
    JsonOption,
    PipelineArgument,
    YesOption,
    command,
    confirm,
    emit,
    heading,
    moment,
    printable,
    say,
    show_pairs,
    show_table,
    usage,
)
from vector_assets.engine.errors import ConfigError

if TYPE_CHECKING:
    from vector_assets.engine.dead_letters import DeadLetter
    from vector_assets.engine.run import Outcome
    from vector_assets.engine.session import Session

app = typer.Typer(no_args_is_help=True, help="List, show, edit, replay and purge rejected records.")

_SHOWN_BYTES = 4096
_HEX_WIDTH = 16

StateOption = Annotated[
    Literal["open", "replaying", "replayed", "purged", "hidden", "all"],
    typer.Option(help="Only letters in this state; hidden ones belong to a batch that is not done."),
]
IdsOption = Annotated[
    list[int] | None, typer.Option("--id", metavar="ID", help="One letter; may be given several times.")
]


@command(
    app, "vector-assets dead-letters list car_info", "vector-assets dead-letters list --state all --json", name="list"
)
def list_letters(
    pipeline: Annotated[str | None, typer.Argument(metavar="PIPELINE", help="All pipelines when left out.")] = None,
    *,
    state: StateOption = "open",
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    after: Annotated[int, typer.Option(metavar="ID", help="Only letters with a higher id (the next page).")] = 0,
    as_json: JsonOption = False,
) -> None:
    """List rejected records with their place and the reason, oldest first."""
    from vector_assets.cli.declared import books, known_to_ledger

    with books() as open_books:
        if pipeline is not None:
            known_to_ledger(open_books, pipeline)
        wanted = None if state == "all" else state
        letters = open_books.ledger.dead_letters.listed(pipeline, state=wanted, limit=limit + 1, after=after)
    more, letters = letters[limit:], letters[:limit]
    if as_json:
        emit({"dead_letters": [letter_json(letter) for letter in letters], "next": letters[-1].id if more else None})
        return
    if not letters:
        say("no dead letters" if state == "all" else f"no dead letters in state {state}")
        return
    show_table(
        ("id", "pipeline", "batch", "place", "stage", "state", "try", "error"),
        [(str(x.id), x.pipeline, x.seq, place(x), x.stage, standing(x), x.attempt, x.error) for x in letters],
        right=("id", "batch", "try"),
    )
    if more:
        say(f"there are more: --after {letters[-1].id}", "dim")


@command(app, "vector-assets dead-letters show 17", "vector-assets dead-letters show 17 --json")
def show(
    letter_id: Annotated[
        int, typer.Argument(metavar="ID", help="As `dead-letters list` shows it.", show_default=False)
    ],
    *,
    as_json: JsonOption = False,
) -> None:
    """Show one rejected record: raw bytes, headers, place and reason."""
    from vector_assets.cli.declared import books

    with books() as open_books:
        letter = open_books.ledger.dead_letters.get(letter_id)
    if letter is None:
        raise ConfigError(f"there is no dead letter {letter_id}; `vector-assets dead-letters list --state all`")
    if as_json:
        emit(letter_json(letter, with_bytes=True))
        return
    _show_letter(letter)


def _show_letter(letter: "DeadLetter") -> None:
    batch = f"{letter.seq}" + (f" (read by batch {letter.origin_seq})" if letter.origin_seq != letter.seq else "")
    show_pairs(
        [
            ("pipeline", letter.pipeline),
            ("target", letter.target),
            ("batch", batch),
            ("place", f"{letter.split} offset {letter.offset}"),
            ("written", moment(letter.timestamp_ms)),
            ("rejected", moment(letter.created_ms)),
            ("state", standing(letter) + (f" by batch {letter.replayed_by}" if letter.replayed_by else "")),
            ("try", letter.attempt),
            ("code", letter.code_version),
            ("stage", letter.stage),
            ("error", letter.error),
        ]
    )
    if letter.state == "purged":
        say("the bytes were purged", "dim")
        return
    for name, value in letter.headers or ():
        say(f"header {name}: {_text(value)}")
    if letter.key is not None:
        heading("key")
        _show_bytes(letter.key)
    heading("value")
    _show_bytes(letter.value)
    if letter.edit:
        heading(f"edit {letter.edit}")
        _show_bytes(letter.edited)


def _show_bytes(data: bytes | None) -> None:
    if data is None:
        say("null", "dim")
        return
    say(_text(data[:_SHOWN_BYTES]))
    for start in range(0, min(len(data), _SHOWN_BYTES), _HEX_WIDTH):
        part = data[start : start + _HEX_WIDTH]
        printable = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in part)
        say(f"{start:08x}  {part.hex(' '):<{3 * _HEX_WIDTH}} {printable}", "dim")
    if len(data) > _SHOWN_BYTES:
        say(f"{len(data) - _SHOWN_BYTES:,} more bytes: --json has all of them", "dim")


@command(
    app,
    "vector-assets dead-letters replay car_info --all --dry-run",
    "vector-assets dead-letters replay car_info --id 17 --id 18",
)
def replay(
    pipeline: PipelineArgument,
    *,
    ids: IdsOption = None,
    every: Annotated[bool, typer.Option("--all", help="Every open letter of the pipeline.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only decode them; nothing is written.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Decode rejected records with today's script and land what is good now, each once.

    What is rejected again becomes a new open letter with the next try number.
    """
    _want_selection(ids, every=every)
    from vector_assets.cli.declared import opened
    from vector_assets.engine import operate

    with opened(pipeline) as session:
        letters = _open_letters(session, ids)
        if dry_run:
            _show_trial(session, letters, as_json=as_json)
            return
        outcome = operate.replay_dead_letters(session, letters)
    _show_replay(pipeline, outcome, as_json=as_json)


def _open_letters(session: "Session", ids: Sequence[int] | None) -> "list[DeadLetter]":
    """The open letters of the pipeline and its target, all or those named.

    Raises:
        ConfigError: a named one is not among them.
    """
    name, target = session.pipeline.name, session.pipeline.target
    found = [x for x in session.ledger.dead_letters.listed(name, state="open") if x.target == target]
    if not ids:
        return found
    by_id = {letter.id: letter for letter in found}
    unknown = [str(wanted) for wanted in ids if wanted not in by_id]
    if unknown:
        raise ConfigError(f"{name}: not an open dead letter of this pipeline: {', '.join(unknown)}")
    return [by_id[wanted] for wanted in dict.fromkeys(ids)]


def _show_trial(session: "Session", letters: "Sequence[DeadLetter]", *, as_json: bool) -> None:
    """Decode the letters under the pipeline's lease and say what would become of each; the target is not asked."""
    from vector_assets.engine.core import POSITION
    from vector_assets.engine.dead_letters import raw_records, splits_of

    full = [session.ledger.dead_letters.get(letter.id) or letter for letter in letters]
    with session.leased() as stages:
        raw = raw_records(full, session.pipeline.raw_schema)
        rejected = stages.decode(raw, splits_of(full)).rejected.to_pylist() if full else []
    why = {row[POSITION]: f"{row['stage']}: {row['error']}" for row in rejected}
    if as_json:
        rows = [{"id": letter.id, "error": why.get(number)} for number, letter in enumerate(full)]
        emit({"pipeline": session.pipeline.name, "dry_run": True, "dead_letters": rows})
        return
    show_table(
        ("id", "place", "today"),
        [(str(x.id), place(x), why.get(number, "decoded; the target would decide")) for number, x in enumerate(full)],
        right=("id",),
    )
    say(f"{len(full) - len(why)} of {len(full)} would be handed to the target; nothing was written")


def _show_replay(pipeline: str, outcome: "Outcome | None", *, as_json: bool) -> None:
    counts = outcome.batch.counts.to_dict() if outcome else None
    if as_json:
        emit({"pipeline": pipeline, "batch": outcome.batch.seq if outcome else None, "counts": counts})
        return
    if outcome is None or counts is None:
        say("no open dead letters: nothing to do")
        return
    columns = ("batch", "letters", "written", "conflicts", "superseded", "rejected again")
    again = counts["rejected"] + counts["refused"]
    row = (outcome.batch.seq, counts["records"], counts["written"], counts["conflicts"], counts["superseded"], again)
    show_table(columns, [row], right=columns)


@command(
    app,
    "vector-assets dead-letters purge car_info --state replayed",
    "vector-assets dead-letters purge car_info --id 17 --yes",
)
def purge(
    pipeline: PipelineArgument,
    *,
    ids: IdsOption = None,
    state: Annotated[
        Literal["open", "replayed"] | None, typer.Option(help="Every letter in this state.", show_default=False)
    ] = None,
    yes: YesOption = False,
) -> None:
    """Delete the bytes of rejected records for good; place and reason stay in the books."""
    if (not ids) == (state is None):
        usage("give either --id ID or --state open|replayed")
    from vector_assets.cli.declared import books, known_to_ledger

    with books() as open_books:
        known_to_ledger(open_books, pipeline)
        letters = open_books.ledger.dead_letters
        found = [x.id for x in letters.listed(pipeline, state=state) if not ids or x.id in ids]
        unknown = sorted(set(ids or ()) - set(found))
        if unknown:
            raise ConfigError(f"{pipeline}: has no dead letter {', '.join(map(str, unknown))}")
        confirm(f"Delete the bytes of {len(found)} dead letters of {pipeline}?", is_confirmed=yes)
        purged = letters.purge(found)
        open_books.ledger.record_event(pipeline, "purge", f"{purged} dead letters, {state or 'by id'}")
    say(f"{purged} purged" + (f", {len(found) - purged} left alone" if purged < len(found) else ""))


def _want_selection(ids: Sequence[int] | None, *, every: bool) -> None:
    if bool(ids) == every:
        usage("give either --id ID or --all")


def place(letter: "DeadLetter") -> str:
    """Where the record stood in the source, in short."""
    from vector_assets.cli.survey import short

    return f"{short(letter.split)}@{letter.offset}"


def standing(letter: "DeadLetter") -> str:
    """Its state, and that it was edited."""
    return letter.state + (f", edited ({letter.edit})" if letter.edit else "")


def letter_json(letter: "DeadLetter", *, with_bytes: bool = False) -> dict[str, Any]:
    """A dead letter for programs; bytes as base64, and as text where they are UTF-8."""
    values: dict[str, Any] = {
        "id": letter.id,
        "pipeline": letter.pipeline,
        "target": letter.target,
        "batch": letter.seq,
        "origin_batch": letter.origin_seq,
        "split": letter.split,
        "offset": letter.offset,
        "timestamp": moment(letter.timestamp_ms),
        "stage": letter.stage,
        "error": letter.error,
        "state": letter.state,
        "attempt": letter.attempt,
        "edit": letter.edit,
        "replayed_by": letter.replayed_by,
        "code_version": letter.code_version,
        "created": moment(letter.created_ms),
    }
    if with_bytes:
        headers = letter.headers
        values["key"] = _bytes_json(letter.key)
        values["value"] = _bytes_json(letter.value)
        values["edited"] = _bytes_json(letter.edited)
        values["headers"] = None if headers is None else [{"key": k, "value": _bytes_json(v)} for k, v in headers]
    return values


def _bytes_json(data: bytes | None) -> dict[str, str | None] | None:
    if data is None:
        return None
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = None
    return {"base64": base64.b64encode(data).decode(), "text": text}


def _text(data: bytes | None) -> str:
    """Bytes as text; control characters and what is not UTF-8 as escapes."""
    return "null" if data is None else printable(data.decode(errors="backslashreplace"))
