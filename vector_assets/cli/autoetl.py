"""`vector-assets autoetl`: links from MySQL to a search index that are asked for by a CALL."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vector_assets.cli.output import JsonOption, YesOption, command, confirm, emit, say, show_table, unwrapped, warn
from vector_assets.engine.errors import ConfigError, VectorAssetsError

if TYPE_CHECKING:
    from vector_assets.declare.autoetl_folder import RequestScript
    from vector_assets.declare.autoetl_requests import Request
    from vector_assets.engine.errors import Place
    from vector_assets.engine.ledger import Ledger
    from vector_assets.engine.pipeline import Pipeline

_HELP = """
Keep an index of a search cluster as tables of MySQL, with vectors, from one CALL.

In a file of pipelines/, behind SET statements that say where MySQL and the cluster are:

CALL dbms_etl.sync_by_map("search", "idx.my_text(db.t.body),idx.id(db.t.id)", "idx.id=db.t.id", "", "");

The second text says which columns fill which fields, the third which column makes the _id. Further tables are joined
there: "idx.id=db.t.id,idx.id=db.u.t_id"; the first one drives, its rows are the documents. The last two are empty.

From any MySQL client: SET 'autoetl.requests' = 'true' in such a file, `vector-assets autoetl install`, then the same
CALL in the client. Where its sql_mode has ANSI_QUOTES, double quotes are for names: use single quotes.

docs/autoetl.md has the settings.
"""

app = typer.Typer(no_args_is_help=True, help=unwrapped(_HELP))
LinkArgument = Annotated[str, typer.Argument(metavar="LINK", help="Name of a link.", show_default=False)]


def _scripts() -> "list[RequestScript]":
    from vector_assets.declare.autoetl_folder import request_scripts
    from vector_assets.engine.env import pipelines_dir

    return request_scripts(pipelines_dir())


@command(app, "vector-assets autoetl install", "vector-assets autoetl install pipelines/search.sql")
def install(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="A script with SET 'autoetl.requests' = 'true'.", show_default="the only"),
    ] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Create schema dbms_etl on the script's MySQL server, with the procedures that take links from its clients.

    Again, it replaces the procedures and keeps what was asked for. The user of mysql.username needs CREATE, CREATE
    ROUTINE and ALTER ROUTINE on dbms_etl; those who ask need EXECUTE, SELECT, INSERT and UPDATE there, and to see the
    tables they name.
    """
    from vector_assets.clients.mysql_etl import install as make

    script = _only(file)
    with script.opened() as server:
        made = make(server)
    if as_json:
        emit({"server": script.server.where, "made": made})
        return
    say(f"{script.server.where}: {len(made)} objects made")
    say('next: CALL dbms_etl.sync_by_map("search", ...) in any MySQL client, vector-assets autoetl list here', "dim")


def _only(file: Path | None) -> "RequestScript":
    from vector_assets.declare.autoetl_folder import script_of

    if file is not None:
        script = script_of(file)
        if script is None:
            raise ConfigError(f"{file}: takes no requests: SET 'autoetl.requests' = 'true';")
        return script
    found = _scripts()
    if len(found) != 1:
        listed = ", ".join(str(each.path) for each in found) or "none"
        raise ConfigError(f"want one script with SET 'autoetl.requests' = 'true', found {listed}: name the FILE")
    return found[0]


@command(app, "vector-assets autoetl list", "vector-assets autoetl list --json", name="list")
def list_(*, as_json: JsonOption = False) -> None:
    """Show every link, those in files and those that MySQL clients asked for; new requests are taken up.

    A link that was taken up is a pipeline: run, status, search, dead-letters and the like know it by its name.
    """
    from vector_assets.cli.declared import books, sound
    from vector_assets.declare import is_asked_for

    scripts = _scripts()
    with books() as open_books:
        ledger = open_books.ledger
        asked = {request.name: (script, request) for script in scripts for request in _refreshed(script, ledger)}
        found, errors = sound()
        shown = [_row(each, asked, ledger) for each in found if _is_link(each)]
        known = {each.name for each in found if _is_link(each) and is_asked_for(each)}
        places = {each.name: each.place for each in found if each.name not in known}
        shown += [
            {"link": name, "state": "WRONG", "index": "", "tables": "", "asked": f"by {request.asked_by}",
             "status": _told(script, request, _wrong(script, request, places.get(name)))}
            for name, (script, request) in asked.items()
            if name not in known and not request.is_dropped
        ]  # fmt: skip
    if as_json:
        emit({"links": shown})
        return
    for error in errors:
        warn(f"left out: {error}")
    columns = ("link", "state", "index", "tables", "asked", "status")
    show_table(columns, [[each[name] for name in columns] for each in shown])


def _refreshed(script: "RequestScript", ledger: "Ledger") -> "list[Request]":
    """What is asked for now; as it was last seen when the server does not say."""
    try:
        return script.refresh(ledger)
    except VectorAssetsError as error:
        warn(f"{script.path}: requests as they were last seen: {error}")
        return script.noted(ledger)


def _wrong(script: "RequestScript", request: "Request", taken: "Place | None") -> str:
    try:
        script.pipeline(request)
    except ConfigError as error:
        return str(error)
    return f"its name is taken by {taken}" if taken else "its index is another pipeline's"


def _told(script: "RequestScript", request: "Request", status: str) -> str:
    """The status, when the client that asked has been told."""
    try:
        script.report(request, f"failed: {status}")
    except VectorAssetsError as error:
        warn(f"{request.name}: the client that asked for it is not told: {error}")
    return status


def _is_link(pipeline: "Pipeline") -> bool:
    """True of a pipeline that a CALL declares."""
    return pipeline.link is not None


def _row(pipeline: "Pipeline", asked: "dict[str, tuple[RequestScript, Request]]", ledger: "Ledger") -> dict[str, Any]:
    from vector_assets.engine.links import is_paused

    name = pipeline.name
    newest = ledger.batches(name, pipeline.target, limit=1, newest_first=True)
    status = f"batch {newest[0].seq} {newest[0].state}" if newest else "not run yet"
    request = asked[name][1] if name in asked and pipeline.is_idle else None
    return {
        "link": name,
        "state": "PAUSED" if is_paused(ledger, name) else "RUNNING",
        "index": pipeline.sink_table.name,
        "tables": pipeline.link,
        "asked": f"by {request.asked_by}, {request.asked_at} UTC" if request else f"in {pipeline.place}",
        "status": status,
    }


@command(app, "vector-assets autoetl pause test_index")
def pause(link: LinkArgument) -> None:
    """Stop a link until it is resumed. What is written meanwhile is read then, while the binlog still has it."""
    _change(link, "pause")


@command(app, "vector-assets autoetl resume test_index")
def resume(link: LinkArgument) -> None:
    """Let a paused link go on."""
    _change(link, "resume")


@command(app, "vector-assets autoetl drop test_index --yes")
def drop(link: LinkArgument, *, yes: YesOption = False) -> None:
    """End a link that a MySQL client asked for. Its index stays as it is, and so does what the ledger holds.

    A link in a file is ended by taking its CALL out of the file.
    """
    confirm(f"Drop the link {link}? Its index stays.", is_confirmed=yes)
    _change(link, "drop")


def _change(link: str, verb: str) -> None:
    from vector_assets.cli.declared import books, pipelines
    from vector_assets.engine import links

    done = {"pause": "paused", "resume": "goes on", "drop": "dropped"}[verb]
    with books() as open_books:
        ledger = open_books.ledger
        for script in _scripts():
            for request in script.refresh(ledger):
                if request.name == link and not request.is_dropped:
                    script.change(request, verb)
                    script.refresh(ledger)
                    say(f"link {link}: {done}")
                    return
        (found,) = pipelines(link)
        if not _is_link(found):
            raise ConfigError(f"{link} is no link of AutoETL: {found.place} declares it without a CALL")
        if verb == "drop":
            raise ConfigError(f"link {link} is declared at {found.place}: take its CALL out of the file")
        is_new = links.pause(ledger, link, paused=verb == "pause")
        say(f"link {link}: {done}" if is_new else f"link {link}: {done} already")
