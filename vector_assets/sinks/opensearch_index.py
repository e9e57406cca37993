"""What a name means to a cluster: an index, an alias of one or of several, a data stream, or indices by a pattern."""

from dataclasses import dataclass
from typing import Any

from vector_assets.clients.opensearch import Client, MissingError
from vector_assets.engine.errors import PlanError
from vector_assets.sinks.opensearch_names import Pattern

META = "vector_assets"
"""Key of the mapping's `_meta` under which an index says by which columns its documents are identified."""


@dataclass(frozen=True, slots=True)
class Index:
    """A concrete index, or several that are one target.

    `name` is what it was asked by and what searches go to; mapping and settings are those of `concrete`, which new
    documents go to. Of several, `uuids` are those of all, oldest first; `time_field` is a data stream's.
    """

    name: str
    concrete: str
    uuid: str
    properties: dict[str, Any]
    settings: dict[str, Any]
    meta: dict[str, Any]
    dynamic: str
    uuids: tuple[str, ...] = ()
    is_several: bool = False
    time_field: str | None = None
    pattern: Pattern | None = None

    def passes(self, which: str) -> bool:
        """True where there is a `default` (or `final`) ingest pipeline."""
        return self.settings.get(f"index.{which}_pipeline", "_none") not in {"", "_none"}


def describe(client: Client, name: str) -> Index | None:
    """What is behind a name (a pattern, perhaps), None where there is nothing.

    Raises:
        PlanError: the name is an alias of several indices of which none is the one to write to.
    """
    pattern = Pattern.parse(name)
    if pattern is not None:
        return _of_pattern(client, pattern)
    try:
        found = client.ask("GET", f"/{name}", params={"flat_settings": "true"})
    except MissingError:
        return None
    by_age = sorted(found, key=lambda each: (int(found[each]["settings"]["index.creation_date"]), each))
    uuids = tuple(found[each]["settings"]["index.uuid"] for each in by_age)
    if found[by_age[0]].get("data_stream"):
        (stream,) = client.ask("GET", f"/_data_stream/{name}")["data_streams"]
        concrete = stream["indices"][-1]["index_name"]
        return _made(name, concrete, found[concrete], uuids, time_field=stream["timestamp_field"]["name"])
    writing = [each for each in by_age if found[each].get("aliases", {}).get(name, {}).get("is_write_index")]
    if writing:
        return _made(name, writing[0], found[writing[0]], uuids)
    if len(found) != 1:
        raise PlanError(
            f"{client.place}: {name} is an alias of {len(found)} indices ({', '.join(by_age[:5])}) and none of them is"
            " its write index: set is_write_index on the one that new documents go to"
        )
    return _made(name, by_age[0], found[by_age[0]], ())


def _of_pattern(client: Client, pattern: Pattern) -> Index | None:
    """The newest index of the pattern, or what a new one would be."""
    found = client.ask("GET", f"/{pattern.wildcard}", params={"flat_settings": "true", "allow_no_indices": "true"})
    if found:
        concrete = max(found, key=lambda each: (int(found[each]["settings"]["index.creation_date"]), each))
        return _made(pattern.wildcard, concrete, found[concrete], (), pattern=pattern)
    template = client.ask("POST", f"/_index_template/_simulate_index/{pattern.example}").get("template", {})
    if not template.get("mappings"):
        return None
    template = {**template, "settings": _flat(template.get("settings", {}))}
    return _made(pattern.wildcard, pattern.example, template, (), pattern=pattern)


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by their whole names, as an index tells them when it is asked to."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return found


def _made(
    name: str, concrete: str, body: dict[str, Any], uuids: tuple[str, ...], *, time_field: str | None = None,
    pattern: Pattern | None = None,
) -> Index:  # fmt: skip
    mapping, settings = body.get("mappings", {}), body.get("settings", {})
    uuid = f"pattern:{pattern.wildcard}" if pattern is not None else settings["index.uuid"]
    meta = mapping.get("_meta", {}).get(META, {})
    is_several = bool(uuids) or pattern is not None
    return Index(
        name, concrete, uuid, mapping.get("properties", {}), settings, meta, str(mapping.get("dynamic", "")), uuids,
        is_several, time_field, pattern,
    )  # fmt: skip


def homes(client: Client, name: str, ids: list[str]) -> dict[str, str]:
    """Which of the indices behind a name holds each document, of those that are in one."""
    client.ask("POST", f"/{name}/_refresh")
    found: dict[str, str] = {}
    for at in range(0, len(ids), _IDS):
        part = ids[at : at + _IDS]
        body = {"size": 2 * _IDS, "_source": False, "query": {"ids": {"values": part}}}
        found |= {hit["_id"]: hit["_index"] for hit in client.ask("POST", f"/{name}/_search", body)["hits"]["hits"]}
    return found


_IDS = 1_000


def family(uuids: tuple[str, ...], known: dict[str, Any] | None) -> tuple[str, dict[str, Any] | None]:
    """What tells several indices from others under the same name, and what is to be noted of them (None: nothing new).

    They are the same as long as one of those that were seen last is there: a roll-over adds some, retention removes
    some.
    """
    if known is not None and set(known["uuids"]) & set(uuids):
        noted = {"incarnation": known["incarnation"], "uuids": sorted(uuids)}
        return known["incarnation"], noted if noted != known else None
    return uuids[0], {"incarnation": uuids[0], "uuids": sorted(uuids)}
