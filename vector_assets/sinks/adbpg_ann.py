"""FastANN's index in pgvector's words: `USING ann(c) WITH (dim='10')` as an hnsw index over `c::vector(10)`. Pure.

Names, ranges and defaults of the options are those of AnalyticDB's documentation (create an HNSW vector index).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlglot.dialects.postgres import Postgres
from sqlglot.tokenizer_core import Token, TokenType

from vector_assets.engine.errors import ConfigError, Place
from vector_assets.engine.registry import nearest
from vector_assets.sinks.adbpg_script import Index, name_of

OPERATORS = {"l2": "<->", "ip": "<#>", "cosine": "<=>"}
"""The distance operator of each of FastANN's measures; pgvector's are the same."""

_NUMBERS = {
    "dim": (1, 8192), "hnsw_m": (10, 1000), "hnsw_ef_construction": (40, 4000), "pq_enable": (0, 1),
    "pq_segments": (0, 8192), "pq_centers": (1, 8192), "external_storage": (0, 1),
}  # fmt: skip
KNOWN = ("distancemeasure", *_NUMBERS)
_WITHOUT_EFFECT = {
    "pq_enable": "pgvector does not compress vectors by product quantization",
    "pq_segments": "pgvector does not compress vectors by product quantization",
    "pq_centers": "pgvector does not compress vectors by product quantization",
    "external_storage": "pgvector keeps its index in the database's own pages",
}
_MOST_M, _MOST_EF, _LEAST_EF = 100, 1000, 64
_MOST_VECTOR, _MOST_HALFVEC = 2000, 4000
"""pgvector: m from 2 to 100; ef_construction from 4 to 1000, by default 64, and at least 2 m; hnsw takes so many
dimensions of a vector, so many of a halfvec."""


@dataclass(frozen=True, slots=True)
class Translated:
    """What stands in the place of an ann index's `USING ...`, and what changed, one sentence each."""

    rest: str
    notes: tuple[str, ...]


def to_hnsw(index: Index, place: Place, qualifier: str = "") -> Translated:
    """The same index for pgvector; `qualifier` (such as `ext.`) goes before pgvector's own names.

    Raises:
        ConfigError: an option is unknown, malformed or missing, or pgvector cannot index so many dimensions.
    """
    tokens = Postgres().tokenize(index.rest)
    if [t.token_type for t in tokens[2:5:2]] != [TokenType.L_PAREN, TokenType.R_PAREN]:
        raise ConfigError("an ann index is over one column: want USING ann(column)", place)
    column = index.rest[tokens[3].start : tokens[3].end + 1]
    options, end = _options(tokens, place)
    if "dim" not in options:
        raise ConfigError("an ann index needs the option dim: WITH (dim='...')", place)
    dimension, measure = int(options["dim"]), options.get("distancemeasure", "l2")
    if dimension > _MOST_HALFVEC:
        raise ConfigError(f"dim='{dimension}': pgvector indexes at most {_MOST_HALFVEC} dimensions", place)
    kind = "vector" if dimension <= _MOST_VECTOR else "halfvec"
    body = f"hnsw (({column}::{qualifier}{kind}({dimension})) {qualifier}{kind}_{measure}_ops)"
    notes = [f"ann({column}) becomes {body}: FastANN is AnalyticDB's, this server has pgvector"]
    if kind == "halfvec":
        notes.append(
            f"{dimension} dimensions are indexed as 16-bit numbers (halfvec): hnsw takes {_MOST_VECTOR} others"
        )
    settings = _settings(options, notes)
    notes += [
        f"{name}={options[name]} is left out: {_WITHOUT_EFFECT[name]}" for name in options if _is_lost(name, options)
    ]
    tail = index.rest[tokens[end].end + 1 :]
    return Translated(f"USING {body}{settings}{tail}", tuple(notes))


def _is_lost(name: str, options: dict[str, str]) -> bool:
    """True for an option that asks for something pgvector does not do; what is switched off needs no word."""
    if name in {"pq_segments", "pq_centers"}:
        return options.get("pq_enable") == "1"
    return name in _WITHOUT_EFFECT and options[name] != "0"


def _settings(options: dict[str, str], notes: list[str]) -> str:
    """pgvector's WITH clause; empty when the script leaves both numbers to the server."""
    given = {}
    if "hnsw_m" in options:
        given["m"] = _clipped("hnsw_m", int(options["hnsw_m"]), _MOST_M, notes)
    if "hnsw_ef_construction" in options:
        name = "hnsw_ef_construction"
        given["ef_construction"] = _clipped(name, int(options[name]), _MOST_EF, notes)
    least = max(2 * given.get("m", 0), _LEAST_EF if "ef_construction" not in given else 0)
    if "m" in given and given.get("ef_construction", _LEAST_EF) < 2 * given["m"]:
        notes.append(f"ef_construction = {least}: pgvector wants at least twice m = {given['m']}")
        given["ef_construction"] = least
    listed = ", ".join(f"{name} = {value}" for name, value in given.items())
    return f" WITH ({listed})" if listed else ""


def _clipped(name: str, value: int, most: int, notes: list[str]) -> int:
    if value > most:
        notes.append(f"{name}={value} becomes {most}, the most that pgvector takes")
    return min(value, most)


def _options(tokens: Sequence[Token], place: Place) -> tuple[dict[str, str], int]:
    """The options of WITH (...) by name in lower case, and the last token before what follows."""
    if len(tokens) <= 5 or tokens[5].token_type != TokenType.WITH:
        return {}, 4
    found: dict[str, str] = {}
    at = 7
    while at + 3 < len(tokens) + 1 and tokens[at - 1].token_type in {TokenType.L_PAREN, TokenType.COMMA}:
        parts = list(tokens[at : at + 3])
        if len(parts) < 3 or parts[1].token_type != TokenType.EQ:
            break
        name = name_of(parts[0])
        if name in found:
            raise ConfigError(f"ann index: option {name} is given twice", place)
        found[name] = _checked(name, parts[2].text.strip().lower(), place)
        at += 4
        if at - 1 < len(tokens) and tokens[at - 1].token_type == TokenType.R_PAREN:
            return found, at - 1
    raise ConfigError("ann index: want WITH (name='value', ...)", place)


def _checked(name: str, value: str, place: Place) -> str:
    if name not in KNOWN:
        raise ConfigError(f"ann index: unknown option {name!r}{nearest(name, KNOWN)}; known: {', '.join(KNOWN)}", place)
    if name == "distancemeasure":
        if value not in OPERATORS:
            raise ConfigError(f"ann index: distancemeasure is {value!r}; known: {', '.join(OPERATORS)}", place)
        return value
    least, most = _NUMBERS[name]
    if not value.isdecimal() or not least <= int(value) <= most:
        raise ConfigError(f"ann index: {name} is {value!r}, want a whole number from {least} to {most}", place)
    return value
