"""The embedded registry: its API as clients of any registry use it, over restarts and crashes."""

import json
import os
from pathlib import Path

import pytest

from vector_assets.local.registry_compatibility import problems

pytestmark = pytest.mark.service


def schema(*fields, name="t"):
    return {"type": "record", "name": name, "fields": [dict(zip(("name", "type", "default"), f)) for f in fields]}  # noqa: B905


ID = ("id", "long")


def text(definition):
    return {"schema": json.dumps(definition)}


def test_a_registered_schema_is_found_by_id_subject_and_text(registry):
    subject = registry.fresh_subject()
    number = registry.register(schema(ID), subject)
    assert registry.register(schema(ID), subject) == number
    assert registry.register(schema(ID), registry.fresh_subject()) == number
    status, found = registry.ask("GET", f"/schemas/ids/{number}")
    assert (status, json.loads(found["schema"])) == (200, schema(ID))
    assert registry.ask("GET", f"/subjects/{subject}/versions") == (200, [1])
    assert registry.ask("GET", f"/subjects/{subject}/versions/latest")[1]["id"] == number
    assert registry.ask("GET", f"/subjects/{subject}/versions/1/schema") == (200, schema(ID))
    assert registry.ask("POST", f"/subjects/{subject}", text(schema(ID)))[1]["version"] == 1
    assert {"subject": subject, "version": 1} in registry.ask("GET", f"/schemas/ids/{number}/versions")[1]
    assert subject in registry.ask("GET", "/subjects")[1]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/schemas/ids/99999", None, 404, 40403),
        ("GET", "/subjects/none/versions", None, 404, 40401),
        ("GET", "/subjects/none/versions/1", None, 404, 40401),
        ("POST", "/subjects/none", text("string"), 404, 40401),
        ("POST", "/subjects/s/versions", {"schema": "{"}, 422, 42201),
        ("POST", "/subjects/s/versions", {"schema": '{"type": "record"}'}, 422, 42201),
        ("POST", "/subjects/s/versions", {"schema": '"x"', "schemaType": "XML"}, 422, 42201),
        ("PUT", "/config/s", {"compatibility": "SOME"}, 422, 42203),
        ("GET", "/config/none", None, 404, 40408),
        ("GET", "/nothing", None, 404, 404),
    ],
)
def test_refusals_have_the_registry_s_codes(registry, method, path, body, status, code):
    found = registry.ask(method, path, body)
    assert (found[0], found[1]["error_code"]) == (status, code)


def test_an_incompatible_schema_is_refused_unless_the_level_lets_it_in(registry):
    subject = registry.fresh_subject()
    registry.register(schema(ID), subject)
    added = text(schema(ID, ("name", "string")))
    assert registry.ask("POST", f"/compatibility/subjects/{subject}/versions/latest", added)[1] == {
        "is_compatible": False
    }
    status, found = registry.ask("POST", f"/subjects/{subject}/versions", added)
    assert (status, found["error_code"]) == (409, 409)
    assert "name" in found["message"]
    assert registry.ask("GET", f"/subjects/{subject}/versions") == (200, [1])
    assert registry.ask("PUT", f"/config/{subject}", {"compatibility": "NONE"}) == (200, {"compatibility": "NONE"})
    assert registry.ask("POST", f"/subjects/{subject}/versions", added)[0] == 200
    assert registry.ask("DELETE", f"/config/{subject}") == (200, {"compatibilityLevel": "NONE"})
    assert registry.ask("GET", f"/config/{subject}?defaultToGlobal=true") == (200, {"compatibilityLevel": "BACKWARD"})


def test_deleted_versions_are_gone_and_their_ids_stay_readable(registry):
    subject = registry.fresh_subject()
    number = registry.register(schema(ID, ("x", "string")), subject)
    registry.register(schema(ID), subject)
    assert registry.ask("DELETE", f"/subjects/{subject}/versions/1") == (200, 1)
    assert registry.ask("GET", f"/subjects/{subject}/versions") == (200, [2])
    assert registry.ask("DELETE", f"/subjects/{subject}?permanent=true")[1]["error_code"] == 40405
    assert registry.ask("DELETE", f"/subjects/{subject}") == (200, [2])
    assert registry.ask("GET", f"/subjects/{subject}/versions")[0] == 404
    assert subject in registry.ask("GET", "/subjects?deleted=true")[1]
    assert registry.ask("DELETE", f"/subjects/{subject}?permanent=true") == (200, [1, 2])
    assert registry.ask("GET", f"/schemas/ids/{number}")[0] == 200


def test_a_schema_may_refer_to_another_subject_s(registry):
    subject = registry.fresh_subject()
    registry.register({"type": "enum", "name": "a.Color", "symbols": ["RED"]}, subject)
    reference = [{"name": "a.Color", "subject": subject, "version": 1}]
    number = registry.register(schema(("color", "a.Color")), references=reference)
    assert registry.ask("GET", f"/schemas/ids/{number}")[1]["references"] == reference
    assert registry.ask("POST", "/subjects/other/versions", text(schema(("c", "a.Color"))))[1]["error_code"] == 42201


def test_what_was_registered_outlives_a_crash(own_registry):
    registry = own_registry()
    number = registry.register(schema(ID), "s")
    registry.service.kill()
    registry.service.start()
    assert registry.ask("GET", "/subjects/s/versions/1")[1]["id"] == number
    assert registry.register(schema(ID), "s2") == number


def test_users_must_say_who_they_are_and_their_names_are_in_no_process_list(own_registry):
    registry = own_registry({"ann": "secret-word"})
    assert registry.ask("GET", "/subjects")[0] == 401
    assert registry.ask("GET", "/subjects", user="ann:wrong")[0] == 401
    assert registry.ask("GET", "/subjects", user="ann:secret-word") == (200, [])
    command = Path(f"/proc/{registry.service.status().pid}/cmdline").read_text()
    assert "secret-word" not in command
    assert os.stat(registry.service.data_dir / "users.json").st_mode & 0o077 == 0


ENUM = {"type": "enum", "name": "e", "symbols": ["A", "B"]}
LINK = {"type": "record", "name": "t", "fields": [{"name": "next", "type": ["null", "t"]}]}


@pytest.mark.parametrize(
    ("level", "old", "new", "count"),
    [
        ("BACKWARD", schema(ID), schema(ID, ("a", "int", 0)), 0),
        ("BACKWARD", schema(ID), schema(ID, ("a", "int")), 1),
        ("BACKWARD", schema(ID, ("a", "int")), schema(ID), 0),
        ("FORWARD", schema(ID, ("a", "int")), schema(ID), 1),
        ("FULL", schema(ID), schema(ID, ("a", "int", 0)), 0),
        ("BACKWARD", schema(("a", "int")), schema(("a", "double")), 0),
        ("BACKWARD", schema(("a", "double")), schema(("a", "int")), 1),
        ("BACKWARD", schema(("a", "int")), schema(("a", ["null", "int"])), 0),
        ("BACKWARD", schema(("a", ["null", "int"])), schema(("a", "int")), 1),
        ("BACKWARD", schema(("a", ENUM)), schema(("a", ENUM | {"symbols": ["A"]})), 1),
        ("BACKWARD", schema(("a", ENUM)), schema(("a", ENUM | {"symbols": ["A"], "default": "A"})), 0),
        ("BACKWARD", schema(ID), schema(ID, name="u"), 1),
        ("BACKWARD", schema(ID), schema(ID, name="u") | {"aliases": ["t"]}, 0),
        ("BACKWARD", LINK, LINK, 0),
        ("BACKWARD", {"type": "array", "items": "string"}, {"type": "array", "items": "int"}, 1),
        ("BACKWARD", {"type": "map", "values": "int"}, {"type": "map", "values": "long"}, 0),
        ("NONE", "string", "int", 0),
    ],
)
def test_compatibility_is_that_of_schema_resolution(level, old, new, count):
    assert len(problems(level, [new], [[old]])) == count


def test_only_transitive_levels_look_at_all_versions():
    older = [[schema(("a", "string"))], [schema(("b", "int", 0))]]
    assert problems("BACKWARD", [schema(("a", "int", 0))], older) == []
    assert len(problems("BACKWARD_TRANSITIVE", [schema(("a", "int", 0))], older)) == 1
