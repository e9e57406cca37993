"""The external database that a managed service's Paimon tables belong to: its DDL, and what it must be.

A database is never made by itself: `vector-assets target create` takes its CREATE EXTERNAL DATABASE, checks it and
notes it under the home folder, where whoever writes a Paimon table into it finds it again. The directory must be there.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vector_assets.clients.paimon import Storage
from vector_assets.engine import env
from vector_assets.engine.errors import ConfigError, Place, PlanError
from vector_assets.sinks.paimon_options import PaimonOptions

WAREHOUSE = "adb.paimon.warehouse"
_OWN = ("catalog", WAREHOUSE, "location")
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_HEAD = re.compile(
    r"\s*CREATE\s+(?P<external>EXTERNAL\s+)?DATABASE\s+(?P<exists>IF\s+NOT\s+EXISTS\s+)?(?P<quote>[`\"]?)(?P<name>\w+)(?P=quote)"
    r"\s*(?P<with>WITH\s+DBPROPERTIES\s*\((?P<properties>.*)\))?\s*;?\s*",
    re.IGNORECASE | re.DOTALL,
)
_PAIR = re.compile(
    r"\s*(?:'(?P<quoted>[^']+)'|\"(?P<double>[^\"]+)\"|(?P<bare>[\w.\-]+))\s*=\s*"
    r"(?:'(?P<text>(?:[^']|'')*)'|\"(?P<wide>[^\"]*)\"|(?P<word>[^\s,'\"()]+))\s*(?:,|$)"
)
_IS_DATABASE = re.compile(r"^\s*CREATE\s+(EXTERNAL\s+)?DATABASE\b[^;]*\bDBPROPERTIES\b", re.IGNORECASE | re.DOTALL)
_IS_EXTERNAL = re.compile(r"^\s*CREATE\s+EXTERNAL\s+DATABASE\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Database:
    """A CREATE DATABASE statement; names of properties in lower case where they are ours."""

    name: str
    is_external: bool
    properties: Mapping[str, str]
    place: Place

    @property
    def location(self) -> str:
        """LOCATION without the slash at its end."""
        return self.properties.get("location", "").rstrip("/")

    @property
    def warehouse(self) -> str:
        """The warehouse without the slash at its end."""
        return self.properties.get(WAREHOUSE, "").rstrip("/")

    @property
    def store(self) -> dict[str, str]:
        """Properties that say how an object store is reached, by the names of the sink's options."""
        return {name: text for name, text in self.properties.items() if name not in _OWN}


def is_database_script(text: str) -> bool:
    """True for DDL of a database with DBPROPERTIES or of an external one."""
    bare = _COMMENT.sub(" ", text)
    return bool(_IS_DATABASE.match(bare) or _IS_EXTERNAL.match(bare))


def read_database(text: str, file: str) -> Database:
    """The one statement of a script.

    Raises:
        ConfigError: it is no CREATE [EXTERNAL] DATABASE .. WITH DBPROPERTIES (..), or a property is unknown or doubled.
    """
    place = Place(file, text[: len(text) - len(text.lstrip())].count("\n") + 1)
    found = _HEAD.fullmatch(_COMMENT.sub(" ", text))
    if found is None:
        raise ConfigError(
            "want one statement: CREATE EXTERNAL DATABASE <name> WITH DBPROPERTIES (<name> = <value>, ..)", place
        )
    properties: dict[str, str] = {}
    rest = (found["properties"] or "").strip()
    while rest:
        pair = _PAIR.match(rest)
        if pair is None:
            raise ConfigError(
                f"DBPROPERTIES: want <name> = <value>, separated by commas; cannot read {rest[:40]!r}", place
            )
        name = pair["quoted"] or pair["double"] or pair["bare"]
        name = name.lower() if name.lower() in _OWN else name
        if name in properties:
            raise ConfigError(f"DBPROPERTIES: {name} is said twice", place)
        known = [*_OWN, *(option for option in PaimonOptions.known() if option.startswith(("s3.", "fs.oss.")))]
        if name not in known:
            raise ConfigError(f"DBPROPERTIES: unknown property {name!r}; known: {', '.join(known)}", place)
        value = next(pair[group] for group in ("text", "wide", "word") if pair[group] is not None)
        properties[name] = value.replace("''", "'")
        rest = rest[pair.end() :].strip()
    return Database(found["name"], found["external"] is not None, properties, place)


def unmet(database: Database, with_secrets: Callable[[str], str] = str) -> tuple[str, ...]:
    """What of its requirements a database does not meet, one sentence each; the store is asked for the directory.

    Raises:
        ConfigError: the store refuses the credentials.
        TransientError: the store does not answer.
    """
    lines = []
    if not database.is_external:
        lines.append(f"it must be an external database: CREATE EXTERNAL DATABASE {database.name}")
    catalog = database.properties.get("catalog")
    if catalog is None or catalog.lower() != "paimon":
        lines.append(f"DBPROPERTIES must include catalog = paimon, found {catalog or 'none'}")
    if not database.warehouse:
        lines.append(f"DBPROPERTIES must include {WAREHOUSE}, such as {WAREHOUSE}=oss://bucket/folder")
    suffix = f"/{database.name}.db"
    if not database.location:
        lines.append(f"DBPROPERTIES must include LOCATION, which ends in {suffix}/")
    elif not database.location.endswith(suffix):
        lines.append(
            f"LOCATION must have .db after the database's name: it must end in {suffix}/, found {database.location}"
        )
    elif database.warehouse and database.location != database.warehouse + suffix:
        lines.append(
            f"LOCATION must lie in the warehouse, where engines look for tables: want {database.warehouse}{suffix}/,"
            f" found {database.location}/"
        )
    if database.location and not storage_of(database, with_secrets).exists():
        lines.append(f"the directory {database.location}/ does not exist: make it before, nothing makes it by itself")
    return tuple(lines)


def storage_of(database: Database, with_secrets: Callable[[str], str] = str) -> Storage:
    """The database's directory and how to reach it.

    Raises:
        ConfigError: LOCATION is no place that Paimon tables can lie in.
    """
    store = {name: with_secrets(text) for name, text in database.store.items()}
    options = PaimonOptions.parse(
        {"connector": "paimon", "path": database.location, **store}, f"database {database.name}: LOCATION"
    )
    return options.storage


def check(database: Database, with_secrets: Callable[[str], str] = str) -> None:
    """Refuse a database that does not meet every requirement.

    Raises:
        PlanError: with all that it does not meet.
    """
    if lines := unmet(database, with_secrets):
        raise PlanError(f"{database.place}: database {database.name} cannot take Paimon tables: {'; '.join(lines)}")


def note(database: Database) -> bool:
    """Keep the database under the home folder; False when it is there already with the same properties.

    Raises:
        ConfigError: one of this name is there with other properties.
    """
    before = noted(database.name)
    if before is not None:
        if dict(before.properties) == dict(database.properties):
            return False
        raise ConfigError(f"database {database.name} exists with other properties, noted in {_file(database.name)}")
    file = _file(database.name)
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(".draft")
    kept = {"name": database.name, "properties": dict(database.properties), "place": database.place.file}
    draft.write_text(json.dumps(kept, indent=2))
    draft.replace(file)
    return True


def noted(name: str) -> Database | None:
    """The database of this name that `note` kept."""
    file = _file(name)
    if not file.exists():
        return None
    kept = json.loads(file.read_text())
    return Database(kept["name"], is_external=True, properties=kept["properties"], place=Place(kept["place"]))


def _file(name: str) -> Path:
    return env.home() / "databases" / f"{name}.json"
