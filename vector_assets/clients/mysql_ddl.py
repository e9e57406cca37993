"""Statements of the binlog that change tables: which ones, and what becomes of their columns. Pure."""

import re
from dataclasses import dataclass

_NAME = r"((?:`(?:[^`]|``)+`|[\w$]+)(?:\s*\.\s*(?:`(?:[^`]|``)+`|[\w$]+))?)"
_DDL = re.compile(
    r"(?P<verb>ALTER|CREATE|DROP|TRUNCATE|RENAME)\s+(?:OR\s+REPLACE\s+|TEMPORARY\s+|ONLINE\s+|OFFLINE\s+|IGNORE\s+)*"
    r"(?P<what>TABLES?|(?:UNIQUE\s+|FULLTEXT\s+|SPATIAL\s+)?INDEX|DATABASE|SCHEMA)?\s*(?P<rest>.*)",
    re.I | re.S,
)
COMMENT = re.compile(r"/\*(?![!M]).*?\*/|^\s*(?:--|#)[^\n]*\n", re.S | re.M)


_RENAMED = re.compile(
    rf"\bRENAME\s+COLUMN\s+(?:IF\s+EXISTS\s+)?{_NAME}\s+TO\s+{_NAME}"
    rf"|\bCHANGE\s+(?:COLUMN\s+)?(?:IF\s+EXISTS\s+)?{_NAME}\s+{_NAME}", re.I,
)  # fmt: skip
_DROPPED = re.compile(
    r"\bDROP\s+(?:COLUMN\s+(?:IF\s+EXISTS\s+)?|(?:IF\s+EXISTS\s+)?(?!(?:COLUMN|IF|INDEX|KEY|PRIMARY|FOREIGN|CONSTRAINT|CHECK"
    rf"|PARTITION|DEFAULT|SYSTEM|PERIOD)\b)){_NAME}", re.I,
)  # fmt: skip
_UNSAID = re.compile(
    r"\b(?:TRUNCATE|DROP|EXCHANGE|CONVERT|DISCARD|IMPORT)\s+(?:TABLE\s+\S+\s+TO\s+)?PARTITION\b"
    r"|\b(?:DISCARD|IMPORT)\s+TABLESPACE\b", re.I,
)  # fmt: skip
"""Parts of an ALTER that take rows away, or bring some, without a word of them in the binlog."""
OF_PARTITIONS = "ALTER of partitions"
"""The verb of such an ALTER."""
_EXCHANGED = re.compile(rf"\bWITH\s+TABLE\s+{_NAME}|\bCONVERT\s+TABLE\s+{_NAME}|\bTO\s+TABLE\s+{_NAME}", re.I)
_QUOTED = re.compile(r"""(`(?:[^`]|``)+`)|'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.|"")*\"""", re.S)


@dataclass(frozen=True, slots=True)
class Ddl:
    """A change of tables: what was done (`ALTER`, `DROP`, ...), to which tables by full name, and the statement."""

    verb: str
    tables: tuple[str, ...]
    statement: str
    at_ms: int
    all_tables: tuple[str, ...] = ()

    @property
    def old_and_new(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names that a RENAME (or ALTER ... RENAME) takes away, and those it gives."""
        return self.all_tables[::2], self.all_tables[1::2]

    @property
    def renamed(self) -> tuple[tuple[str, str], ...]:
        """Columns that an ALTER calls otherwise, by the old name and the new one, and those it drops (new: none)."""
        if self.verb != "ALTER":
            return ()
        text = _QUOTED.sub(lambda match: match[1] or "''", COMMENT.sub(" ", self.statement))
        found = (match.groups() for match in _RENAMED.finditer(text))
        pairs = [(_bare(a or c), _bare(b or d)) for a, b, c, d in found]
        pairs += [(_bare(match[1]), "") for match in _DROPPED.finditer(text)]
        return tuple((old, new) for old, new in pairs if old != new)


def ddl_of(text: str, schema: str) -> tuple[str, tuple[str, ...]] | None:
    """Verb and tables (by full name) of a statement that changes tables, None for any other; a database is `name.`."""
    match = _DDL.match(text)
    if match is None or (match["what"] is None and match["verb"].upper() != "TRUNCATE"):
        return None
    verb, what, rest = match["verb"].upper(), (match["what"] or "").upper(), match["rest"]
    rest = re.sub(r"^IF\s+(?:NOT\s+)?EXISTS\s+", "", rest, flags=re.I)
    if what in {"DATABASE", "SCHEMA"}:
        name = re.match(_NAME, rest)
        return (verb, (f"{_bare(name[1])}.",)) if name and verb == "DROP" else None
    if what.endswith("INDEX"):
        return None
    names = re.match(rf"{_NAME}(?:\s*,\s*{_NAME})*", rest) if verb == "DROP" else re.match(_NAME, rest)
    found = re.findall(_NAME, names[0]) if names else []
    if verb == "RENAME":
        found = [name for pair in re.findall(rf"{_NAME}\s+TO\s+{_NAME}", rest, re.I) for name in pair]
    elif verb == "ALTER" and _UNSAID.search(_QUOTED.sub("``", rest)):
        verb = OF_PARTITIONS
        found += [name for each in _EXCHANGED.finditer(rest) for name in each.groups() if name]
    elif verb == "ALTER":
        found += re.findall(rf"\bRENAME\s+(?:TO\s+|AS\s+)?(?!COLUMN\b|INDEX\b|KEY\b){_NAME}", rest, re.I)
    return verb, tuple(_full(name, schema) for name in found)


def full_names(text: str) -> list[str]:
    """What a statement calls by two names with a dot between them, such as tables with their databases."""
    found = re.findall(_NAME, _QUOTED.sub(lambda match: match[1] or "''", text))
    return [_full(name, "") for name in found if "." in name]


def _bare(name: str) -> str:
    return name[1:-1].replace("``", "`") if name.startswith("`") else name


def _full(name: str, schema: str) -> str:
    parts = [_bare(part) for part in re.findall(r"`(?:[^`]|``)+`|[\w$]+", name)]
    return ".".join(parts) if len(parts) == 2 else f"{schema}.{parts[0]}"
