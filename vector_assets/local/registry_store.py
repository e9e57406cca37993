"""What a small schema registry holds: subjects with versions, global ids, compatibility levels; kept in one file."""

import json
import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fastavro
from fastavro.schema import SchemaParseException, UnknownType

from vector_assets.local import registry_compatibility

KINDS = ("AVRO", "JSON", "PROTOBUF")
"""JSON and PROTOBUF schemas are kept as they come; AVRO ones are checked, also for compatibility."""


class Refusal(Exception):  # noqa: N818 (an answer of the protocol, not a failure of ours)
    """An answer that is not 200, with the registry's own error code."""

    def __init__(self, status: int, code: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Store:
    """The registry's content. Threads may share it; what a method did is on disk when it returns."""

    def __init__(self, file: Path) -> None:
        """Read the file, or begin an empty one."""
        self._file = file
        self._lock = threading.RLock()
        if file.exists():
            self._data: dict[str, Any] = json.loads(file.read_text())
        else:
            self._data = {"cluster": uuid.uuid4().hex, "schemas": {}, "subjects": {}, "levels": {}, "level": "BACKWARD"}
            self._save()

    @property
    def cluster(self) -> str:
        """Tells this registry from any other."""
        return str(self._data["cluster"])

    def subjects(self, *, deleted: bool) -> list[str]:
        """Names of the subjects that have a version."""
        return [name for name in self._data["subjects"] if self._live(name, deleted=deleted)]

    def versions(self, subject: str, *, deleted: bool) -> list[int]:
        """The subject's versions."""
        return [each["version"] for each in self._found(subject, deleted=deleted)]

    def version(self, subject: str, which: str) -> dict[str, Any]:
        """A version of a subject as the API shows it."""
        versions = self._found(subject, deleted=False)
        if which in {"latest", "-1"}:
            return self._shown(subject, versions[-1])
        if not which.isdigit() or which == "0":
            raise Refusal(422, 42202, f"The specified version '{which}' is not a valid version id.")
        for each in versions:
            if each["version"] == int(which):
                return self._shown(subject, each)
        raise Refusal(404, 40402, f"Version {which} not found.")

    def schema(self, number: str) -> dict[str, Any]:
        """The schema of an id."""
        found = self._data["schemas"].get(number)
        if found is None:
            raise Refusal(404, 40403, f"Schema {number} not found")
        return {name: value for name, value in found.items() if value and value != "AVRO"}

    def used(self, number: str) -> list[dict[str, Any]]:
        """Subjects and versions that have the schema of an id."""
        self.schema(number)
        return [
            {"subject": name, "version": each["version"]}
            for name in self.subjects(deleted=False)
            for each in self._live(name, deleted=False)
            if each["id"] == int(number)
        ]

    def register(self, subject: str, asked: dict[str, Any]) -> int:
        """The id of a schema that is the subject's newest version now, or was one of its versions."""
        entry = self._checked(asked)
        with self._changing():
            versions = self._data["subjects"].setdefault(subject, [])
            live = self._live(subject, deleted=False)
            for each in live:
                if self._data["schemas"][str(each["id"])] == entry:
                    return int(each["id"])
            if reasons := self._reasons(subject, entry, live):
                text = "; ".join(reasons[:5])
                raise Refusal(409, 409, f"Schema being registered is incompatible with an earlier schema: {text}")
            number = self._number(entry)
            versions.append({"version": max((v["version"] for v in versions), default=0) + 1, "id": number})
            return number

    def lookup(self, subject: str, asked: dict[str, Any]) -> dict[str, Any]:
        """The version of the subject that has this schema."""
        entry = self._checked(asked)
        for each in self._found(subject, deleted=False):
            if self._data["schemas"][str(each["id"])] == entry:
                return self._shown(subject, each)
        raise Refusal(404, 40403, "Schema not found")

    def is_compatible(self, subject: str, which: str, asked: dict[str, Any]) -> list[str]:
        """Why the schema could not follow that version of the subject; empty when it could."""
        entry = self._checked(asked)
        against = self.version(subject, which)["version"]
        versions = [each for each in self._live(subject, deleted=False) if each["version"] == against]
        return self._reasons(subject, entry, versions)

    def delete(self, subject: str, which: str | None, *, permanent: bool) -> list[int]:
        """Delete one version or all; for good only what was deleted before."""
        with self._changing():
            versions = self._found(subject, deleted=permanent)
            chosen = versions
            if which is not None and permanent:
                chosen = [each for each in versions if str(each["version"]) == which]
            elif which is not None:
                wanted = self.version(subject, which)["version"]
                chosen = [each for each in versions if each["version"] == wanted]
            if not chosen:
                raise Refusal(404, 40402, f"Version {which} not found.")
            if permanent and not all(each.get("deleted") for each in chosen):
                raise Refusal(404, 40405, f"Subject '{subject}' was not deleted first before being permanently deleted")
            for each in chosen:
                each["deleted"] = True
            if permanent:
                self._data["subjects"][subject] = [each for each in versions if each not in chosen]
            return [each["version"] for each in chosen]

    def level(self, subject: str | None) -> str:
        """The compatibility level of a subject, or of all that have none of their own."""
        return str(self._data["levels"].get(subject, self._data["level"]))

    def has_level(self, subject: str) -> bool:
        """True when the subject has a level of its own."""
        return subject in self._data["levels"]

    def set_level(self, subject: str | None, level: str | None) -> None:
        """Change a level; None takes a subject's own one away."""
        if level is not None and level not in registry_compatibility.LEVELS:
            known = ", ".join(registry_compatibility.LEVELS)
            raise Refusal(422, 42203, f"Invalid compatibility level. Valid values are {known}")
        with self._changing():
            if subject is None:
                self._data["level"] = level or "BACKWARD"
            elif level is None:
                self._data["levels"].pop(subject, None)
            else:
                self._data["levels"][subject] = level

    def _live(self, subject: str, *, deleted: bool) -> list[dict[str, Any]]:
        return [each for each in self._data["subjects"].get(subject, ()) if deleted or not each.get("deleted")]

    def _found(self, subject: str, *, deleted: bool) -> list[dict[str, Any]]:
        versions = self._live(subject, deleted=deleted)
        if not versions:
            raise Refusal(404, 40401, f"Subject '{subject}' not found.")
        return versions

    def _shown(self, subject: str, version: dict[str, Any]) -> dict[str, Any]:
        number = version["id"]
        return {"subject": subject, "version": version["version"], "id": number, **self.schema(str(number))}

    def _checked(self, asked: dict[str, Any]) -> dict[str, Any]:
        """The schema as it is kept."""
        kind, text = asked.get("schemaType") or "AVRO", asked.get("schema")
        if kind not in KINDS:
            raise Refusal(422, 42201, f"Invalid schema type {kind}; known: {', '.join(KINDS)}")
        if not isinstance(text, str) or not text:
            raise Refusal(422, 42201, "Empty schema")
        entry = {"schemaType": kind, "schema": text, "references": asked.get("references") or []}
        if kind == "AVRO":
            try:
                names: dict[str, Any] = {}
                for definition in self._definitions(entry):
                    fastavro.parse_schema(definition, names)
            except (SchemaParseException, UnknownType, ValueError, TypeError, KeyError, AttributeError) as error:
                raise Refusal(422, 42201, f"Invalid schema: {error}") from None
            entry["schema"] = json.dumps(json.loads(text), separators=(",", ":"))
        return entry

    def _definitions(self, entry: dict[str, Any]) -> list[Any]:
        """The schema's JSON behind that of all schemas it refers to."""
        found: list[Any] = []
        for reference in entry["references"]:
            inner = self.version(reference["subject"], str(reference["version"]))
            found += self._definitions(self._data["schemas"][str(inner["id"])])
        distinct = [each for number, each in enumerate(found) if each not in found[:number]]
        return [*distinct, json.loads(entry["schema"])]

    def _reasons(self, subject: str, entry: dict[str, Any], versions: list[dict[str, Any]]) -> list[str]:
        older = [self._data["schemas"][str(each["id"])] for each in versions]
        if entry["schemaType"] != "AVRO" or any(each["schemaType"] != "AVRO" for each in older):
            return []
        definitions = [self._definitions(each) for each in older]
        return registry_compatibility.problems(self.level(subject), self._definitions(entry), definitions)

    def _number(self, entry: dict[str, Any]) -> int:
        """The id of a schema: equal schemas of different subjects share one."""
        for number, known in self._data["schemas"].items():
            if known == entry:
                return int(number)
        fresh = len(self._data["schemas"]) + 1
        self._data["schemas"][str(fresh)] = entry
        return fresh

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """One change at a time, on disk at its end; forgotten when it is refused."""
        with self._lock:
            before = json.dumps(self._data)
            try:
                yield
            except Refusal:
                self._data = json.loads(before)
                raise
            self._save()

    def _save(self) -> None:
        draft = self._file.with_suffix(".draft")
        with draft.open("w") as opened:
            json.dump(self._data, opened)
            opened.flush()
            os.fsync(opened.fileno())
        draft.replace(self._file)
