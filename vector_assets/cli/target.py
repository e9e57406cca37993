"""`vector-assets target create`: the table or collection that a pipeline writes, made from its DDL."""

import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vector_assets.cli.output import JsonOption, command, emit, heading, say, show_table, usage, working
from vector_assets.engine.errors import ConfigError

if TYPE_CHECKING:
    from vector_assets.clients.postgres import Login
    from vector_assets.sinks.adbpg_create import Step

app = typer.Typer(no_args_is_help=True, help="Make what a pipeline writes to.")

_PIPELINE_SCRIPT = re.compile(r"'connector'\s*=")
_DATABASE = re.compile(r"\bDATABASE\b", re.IGNORECASE)
_SHOWN = 110


@app.callback()
def _target() -> None:
    """Make what a pipeline writes to."""


@command(
    app,
    "vector-assets target create ddl/car_info.sql --dry-run    what would be made on the local server",
    "vector-assets target create ddl/car_info.sql --pipeline car_info",
    "vector-assets target create ddl/car_info.sql --url postgresql://10.0.0.1:5432/postgres --user admin",
    "vector-assets target create pipelines/cars_to_milvus.sql    a pipeline's own target",
    "vector-assets target create ddl/kafka_paimon_external_db.sql    a Paimon database",
)
def create(
    file: Annotated[Path, typer.Argument(metavar="FILE.sql", help="A psql script of DDL, or a pipeline's script.")],
    *,
    pipeline: Annotated[
        str | None, typer.Option(metavar="PIPELINE", help="The server that this pipeline writes to, with its login.")
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The server: postgresql://host:port/database, jdbc: before it too."),
    ] = None,
    user: Annotated[str | None, typer.Option(metavar="NAME", help="Database user at --url.")] = None,
    password_secret: Annotated[
        str, typer.Option(metavar="NAME", help="The secret that holds the password of --user.")
    ] = "target_password",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, do nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    r"""Run the DDL that makes a table with its vector index: on AnalyticDB as written, on PostgreSQL with pgvector.

    The script is psql's: \c switches the database, CREATE DATABASE stands by itself, an index needs no name. A second
    run makes nothing twice: databases that are there and indexes equal to one that is there are left alone. On
    PostgreSQL, DISTRIBUTED BY is dropped and USING ann(...) becomes an hnsw index; every step says so.

    Without --pipeline and --url the local server is meant (`services up`). The password of --user is the environment
    variable VECTOR_ASSETS_SECRET_TARGET_PASSWORD, or that of the secret named by --password-secret.

    If FILE is the script of a pipeline, its sinks make their targets from the declared columns. If it is a CREATE
    EXTERNAL DATABASE .. WITH DBPROPERTIES (..), the Paimon database is checked and noted; its directory must exist.
    """
    from vector_assets.declare.autoetl_script import is_autoetl

    text = _text_of(file)
    if _PIPELINE_SCRIPT.search(text) or is_autoetl(text) or file.suffix in {".yaml", ".yml"}:
        if (pipeline, url, user) != (None, None, None):
            usage("a pipeline's script says itself where it writes: leave out --pipeline, --url and --user")
        _create_of_pipelines(file, dry_run=dry_run, as_json=as_json)
        return
    if _DATABASE.search(text) and _create_database(file, text, dry_run=dry_run, as_json=as_json):
        return
    from vector_assets.declare.flink_sql import shown_path
    from vector_assets.sinks.adbpg_create import TargetScript
    from vector_assets.sinks.adbpg_script import read_script

    login = _login(pipeline, url, user, password_secret)
    with closing(TargetScript(login, read_script(text, shown_path(file)))) as script:
        with working("looking at the server"):
            steps = script.plan()
        if not as_json:
            _show_plan(steps)
        if not dry_run:
            steps = _run(script.run(steps), steps, as_json=as_json)
    if as_json:
        emit({"dry_run": dry_run, "server": f"{login.address.host}:{login.address.port}", "steps": _json(steps)})
    elif dry_run:
        say("\nnothing was done (--dry-run)")


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from error


def _login(pipeline: str | None, url: str | None, user: str | None, password_secret: str) -> "Login":
    """Whom to connect to as whom.

    Raises:
        ConfigError: the URL is wrong, a secret is not set, or the pipeline does not write to such a server.
    """
    from pydantic import SecretStr

    from vector_assets.cli.declared import pipelines, with_secrets
    from vector_assets.clients.postgres import Address, Login
    from vector_assets.engine import env

    if pipeline is not None:
        if url is not None or user is not None:
            usage("--pipeline brings its own server and login: leave out --url and --user")
        (found,) = pipelines(pipeline)
        login = getattr(found.sink_options, "login", None)
        if not isinstance(login, Login):
            raise ConfigError(f"{pipeline}: its sink is {found.sink_connector}, which takes no DDL script")
        return login
    if url is None:
        if user is not None:
            usage("--user goes with --url")
        address = Address.parse(f"postgresql://{env.secret('postgres_address')}/postgres")
        return Login(address, env.secret("postgres_user"), SecretStr(env.secret("postgres_password")))
    if user is None:
        usage("--url needs --user")
    try:
        address = Address.parse(with_secrets(url))
    except ValueError as error:
        raise ConfigError(f"--url: {error}") from None
    return Login(address, user, SecretStr(env.secret(password_secret)))


def _show_plan(steps: "Sequence[Step]") -> None:
    from vector_assets.sinks.adbpg_create import Step

    heading("plan")

    def row(number: int, step: Step) -> tuple[object, ...]:
        return (number, f"line {step.place.line}", step.database, step.action, _short(step.sql))

    rows: list[Sequence[object]] = []
    for number, step in enumerate(steps, start=1):
        rows.append(row(number, step))
        rows += [("", "", "", "", f"  {note}") for note in step.notes]
    show_table(("step", "place", "database", "", "statement"), rows, right=("step",))


def _run(steps: "Iterator[Step]", planned: "Sequence[Step]", *, as_json: bool) -> "list[Step]":
    """Do it; what turned out otherwise than planned is said."""
    done: list[Step] = []
    total = len(planned)
    with working("making the target") as progress:
        for step in steps:
            done.append(step)
            progress(f"{len(done)} of {total}: {_short(step.sql)}")
    if not as_json:
        made = sum(step.action == "run" for step in done)
        heading("done")
        say(f"{made} of {total} statements were run, {total - made} were not needed")
        for number, step in enumerate(done, start=1):
            for note in step.notes[len(planned[number - 1].notes) :]:
                say(f"step {number}: {note}", "dim")
    return done


def _short(sql: str) -> str:
    line = " ".join(sql.split())
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 4]} ..."


def _json(steps: "Sequence[Step]") -> list[dict[str, Any]]:
    return [
        {"place": str(s.place), "database": s.database, "action": s.action, "sql": s.sql, "notes": list(s.notes)}
        for s in steps
    ]


def _create_of_pipelines(file: Path, *, dry_run: bool, as_json: bool) -> None:
    """Let every sink of a pipeline's script make its own target.

    Raises:
        ConfigError: a sink does not make its target.
    """
    from vector_assets.cli.declared import from_file
    from vector_assets.engine.abilities import Creatable

    made: list[dict[str, Any]] = []
    for pipeline in from_file(file):
        sink = pipeline.open_sink()
        with closing(sink), working(pipeline.target):
            if not isinstance(sink, Creatable):
                raise ConfigError(
                    f"{pipeline.name}: a sink {pipeline.sink_connector} does not make its target: give a psql script of"
                    " its DDL (CREATE TABLE, CREATE INDEX) instead of the pipeline's"
                )
            sentences = () if dry_run else sink.create_target(pipeline.schema, pipeline.sink_table.primary_key)
        made.append({"pipeline": pipeline.name, "target": pipeline.target, "made": list(sentences)})
    if as_json:
        emit({"dry_run": dry_run, "targets": made})
        return
    for each in made:
        heading(f"{each['pipeline']}: {each['target']}")
        for sentence in each["made"]:
            say(sentence)
        if dry_run:
            say("would be made unless it is there; nothing was done (--dry-run)")


def _create_database(file: Path, text: str, *, dry_run: bool, as_json: bool) -> bool:
    """Check and note the external database that Paimon tables belong to; False when the script is another kind's.

    Raises:
        ConfigError: the statement cannot be read.
        PlanError: the database does not meet what Paimon tables need.
    """
    from vector_assets.cli.declared import with_secrets
    from vector_assets.declare.flink_sql import shown_path
    from vector_assets.sinks import paimon_database

    if not paimon_database.is_database_script(text):
        return False
    database = paimon_database.read_database(text, shown_path(file))
    with working(f"looking at {database.location}"):
        paimon_database.check(database, with_secrets)
    is_new = not dry_run and paimon_database.note(database)
    if as_json:
        emit({"dry_run": dry_run, "database": database.name, "location": database.location, "made": is_new})
        return True
    heading(f"database {database.name}: {database.location}/")
    said = "it is noted" if is_new else "nothing was done (--dry-run)" if dry_run else "it was noted before"
    say(f"it meets what Paimon tables need; {said}")
    return True
