"""Spark SQL scripts of the managed service's form: `conf k=v;` lines, then statements."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from vector_assets.cli.output import warn, working
from vector_assets.engine.errors import ConfigError
from vector_assets.engine.registry import nearest

if TYPE_CHECKING:
    from vector_assets.engine.pipeline import Pipeline
    from vector_assets.local.spark import Answer, Spark

IDLE = {
    "spark.driver.resourceSpec": "Spark runs in one process of this machine",
    "spark.executor.resourceSpec": "Spark runs in one process of this machine",
    "spark.executor.instances": "Spark runs in one process of this machine",
    "spark.executor.cores": "Spark runs in one process of this machine",
    "spark.executor.memory": "Spark runs in one process of this machine",
    "spark.driver.memory": "Spark runs in one process of this machine",
    "spark.adb.connectors": "tables are read where the declared pipelines write them",
    "spark.adb.version": "there is one version of Spark here",
}
"""Settings of the managed service's clusters: checked, reported, without effect."""

_TAKEN = ("spark.sql.", "spark.app.name", "spark.hadoop.")
_CONF = re.compile(r"\s*(?:set|conf)\s+([\w.\-]+)\s*=\s*(.*?)\s*", re.IGNORECASE | re.DOTALL)
_TOKENS = re.compile(r"--[^\n]*|/\*.*?\*/|'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|`[^`]*`|;|[^;'\"`/-]+|.", re.DOTALL)


@dataclass(slots=True)
class Script:
    """What a script says: settings for Spark, statements, and what of its settings has no effect."""

    settings: dict[str, str] = field(default_factory=dict)
    statements: list[str] = field(default_factory=list)
    reports: list[str] = field(default_factory=list)


def parse(text: str) -> Script:
    """Read a script; comments may stand anywhere, and `;` ends a line of conf as it ends a statement.

    Raises:
        ConfigError: a conf line that is none, one below a statement, or no statement at all.
    """
    script = Script()
    for part in _parts(text):
        word = part.split(None, 1)[0].lower()
        if word != "conf":
            script.statements.append(part)
            continue
        found = _CONF.fullmatch(part)
        if found is None:
            raise ConfigError(f"want conf key=value; found {part!r}")
        if script.statements:
            raise ConfigError(f"conf {found[1]} stands below a statement; settings come first")
        _take(script, found[1], found[2])
    if not script.statements:
        raise ConfigError("the script holds no statement to run")
    return script


def _take(script: Script, name: str, value: str) -> None:
    if name in IDLE:
        script.reports.append(f"conf {name} has no effect: {IDLE[name]}")
    elif name.startswith(_TAKEN):
        script.settings[name] = value
    else:
        hint = nearest(name, [*IDLE, "spark.app.name", "spark.sql.defaultCatalog"])
        script.reports.append(f"conf {name} is unknown and was not set{hint}; known: spark.sql.*, {', '.join(IDLE)}")


def _parts(text: str) -> Iterator[str]:
    """What stands between semicolons, without comments."""
    part: list[str] = []
    for token in _TOKENS.findall(text):
        if token.startswith(("--", "/*")) and len(token) > 1:
            part.append(" ")
        elif token == ";":
            if whole := "".join(part).strip():
                yield whole
            part = []
        else:
            part.append(token)
    if whole := "".join(part).strip():
        yield whole


def catalogs(pipelines: "list[Pipeline]") -> tuple[dict[str, str], list[str], list[str]]:
    """Spark's settings for the catalogs of lake pipelines, their names, and which ones Spark cannot have."""
    from vector_assets.local.spark import iceberg_catalog, paimon_catalog

    settings: dict[str, str] = {}
    names: list[str] = []
    problems: list[str] = []
    warehouses: dict[str, str] = {}
    for pipeline in pipelines:
        options = pipeline.sink_options
        if pipeline.sink_connector == "iceberg":
            login = options.login  # type: ignore[attr-defined]
            uri = login.properties.get("uri", "")
            if not uri.startswith("sqlite:///"):
                problems.append(f"catalog {login.name} of {pipeline.name}: Spark has SQL catalogs in SQLite only here")
                continue
            database = Path(uri.removeprefix("sqlite:///"))
            if not database.exists():
                problems.append(f"catalog {login.name}: is not there: the first run of {pipeline.name} makes it")
            elif login.name not in names:
                names.append(login.name)
                settings |= iceberg_catalog(login.name, login.properties["warehouse"], database)
        elif pipeline.sink_connector == "paimon":
            folder = options.location.rpartition("/")[0].rpartition("/")[0]  # type: ignore[attr-defined]
            if folder not in warehouses:
                warehouses[folder] = "paimon" if not warehouses else f"paimon_{len(warehouses) + 1}"
                names.append(warehouses[folder])
                store = options.storage.settings  # type: ignore[attr-defined]
                settings |= paimon_catalog(warehouses[folder], folder, store)
    return settings, names, problems


def _first(names: list[str]) -> str:
    """The catalog of names without one: the managed lake storage, else one of Iceberg, else any."""
    return min(names, key=lambda name: (name != "lake", name.startswith("paimon")))


def run(text: str) -> "Iterator[Answer]":
    """Run a script over the lake tables of the declared pipelines.

    Raises:
        ConfigError: the script is wrong, or Spark refuses a statement; its own words are in the message.
        TransientError: Spark's jars cannot be downloaded.
    """
    from vector_assets.cli.declared import sound
    from vector_assets.local.spark import Spark

    script = parse(text)
    found, errors = sound()
    settings, names, problems = catalogs(found)
    for report in (*(f"left out: {error}" for error in errors), *problems, *script.reports):
        warn(report)
    default = {"spark.sql.defaultCatalog": _first(names)} if names else {}
    with working("starting Spark") as progress:
        spark = Spark({**settings, **default, **script.settings}, progress)
        progress(f"catalogs: {', '.join(names) or 'none'}")
    with spark:
        yield from _answers(spark, script.statements)


def _answers(spark: "Spark", statements: list[str]) -> "Iterator[Answer]":
    """The answers one by one: a statement that fails takes none of those before it away."""
    answers = spark.run(statements)
    for number, statement in enumerate(statements, 1):
        try:
            yield next(answers)
        except ConfigError as error:
            said = " ".join(statement.split())
            raise ConfigError(f"statement {number} ({said[:60]}): {error.message}") from error
