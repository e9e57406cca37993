"""Fields inferred from samples: the seed's five tables, and what evidence makes of types and names."""

import json
import re

import pytest

from tests.declare.seeds import seed
from vector_assets.engine.errors import ConfigError
from vector_assets.engine.schema import LogicalType
from vector_assets.formats.lake_fields import LakeField, check_fields, parse_path, path_text
from vector_assets.formats.lake_infer import infer
from vector_assets.formats.lake_json import preview_samples


def example() -> tuple[str, str]:
    """The seed's example message as it stands there, and with its bare words in quotes."""
    text = seed(4)
    start = text.index("{", text.index("Example message"))
    found = text[start : text.index("Important", start)]
    return found, re.sub(r":\s*([a-z]+)(?=[,\s}])", r':"\1"', found)


def tables() -> dict[int, list[tuple[str, str, str]]]:
    """The seed's tables: path, value and destination of each field, by level."""
    text = seed(4)
    text = text[text.index("JSON parsing levels and schema inference\n\nThe Parsed") :]
    found = {}
    for level, part in enumerate(re.split(r"^Level \d", text, flags=re.MULTILINE)[1:]):
        lines = [line for line in part.splitlines()[1:] if line and " " not in line]
        found[level] = [line for line in lines if not line.startswith("JSON")]
    return found


@pytest.mark.parametrize("layers", range(5))
def test_the_seeds_example_gives_the_seeds_table(layers):
    broken, mended = example()
    document = json.loads(mended)
    assert document["device"]["os"]["member"]["mo"] == "limei"
    shown = preview_samples([broken.encode(), mended.encode()], layers)
    assert shown.inferred.good == 1
    assert [(bad.number, bad.reason[:16]) for bad in shown.inferred.bad] == [(0, "no JSON: no value"[:16])]
    (row,) = shown.rows.drop_columns(["_rescued", "_position"]).to_pylist()
    written = {
        each.name: (path_text(each.path) or "__value__") + str(row[each.name]) + each.name for each in shown.fields
    }
    wanted = tables()[layers]
    if layers == 0:
        assert row["__value__"] == json.dumps(document, separators=(",", ":"))
        assert len(wanted) == 1
        assert re.fullmatch("__value__.*__value__", wanted[0])
        return
    # a subtree is cut in the seed's tables: `{...}`; its fifth table lacks the last letter of the example's `limei`
    wanted = [re.sub("(?<=[.]molime)(?=device)", "i", line) for line in wanted]
    patterns = [re.escape(line).replace(r"\{\.\.\.\}", r"\{.*\}") for line in wanted]
    assert len(patterns) == len(written)
    for line, pattern in zip(written.values(), patterns, strict=True):
        assert re.fullmatch(pattern, line), (line, pattern)


def named(*documents: str, layers: int = 1, **settings):
    inferred = infer([document.encode() for document in documents], layers, **settings)
    return {each.name: each.spelled for each in inferred.fields}, inferred


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "2"], "BIGINT"),
        (["9007199254740993", "-9223372036854775808"], "BIGINT"),
        (["9223372036854775808"], "DECIMAL(38, 0)"),
        (["1" * 39], "JSON"),
        (["1", "1.5"], "DOUBLE"),
        (["0.1000000000000000055"], "DECIMAL(38, 19)"),
        (["9007199254740993", "0.5"], "DECIMAL(38, 1)"),
        (["1e400"], "JSON"),
        (["1e3"], "DOUBLE"),
        (["50.0", "1"], "DOUBLE"),
        (["true", "null"], "BOOLEAN"),
        (['"x"', '""'], "STRING"),
        (["null", "null"], "JSON"),
        (["[1]"], "JSON"),
        (["1", '"1"'], "JSON"),
        (["true", "1"], "JSON"),
        (["{}"], "JSON"),
    ],
)
def test_a_type_holds_every_value_that_was_seen(values, kind):
    assert named(*(f'{{"x":{value}}}' for value in values))[0] == {"x": kind}


@pytest.mark.parametrize(
    ("values", "kind", "iso"),
    [
        (["2026-03-01"], "DATE", False),
        (["2026-03-01 12:00:00"], "TIMESTAMP(0)", False),
        (["2026-03-01T12:00:00.123Z"], "TIMESTAMP_LTZ(3)", True),
        (["2026-03-01", "soon"], "STRING", False),
        (["2026-03-01 12:00:00.1", "2026-03-01 12:00:00.12"], "STRING", False),
    ],
)
def test_times_are_recognized_where_asked_for(values, kind, iso):
    documents = [json.dumps({"x": value}) for value in values]
    assert named(*documents)[0] == {"x": "STRING"}
    found, inferred = named(*documents, times=True)
    assert (found["x"], inferred.fields[0].iso) == (kind, iso)


def test_names_that_collide_are_told_and_lose_nothing():
    found, inferred = named('{"a":{"b":1},"a.b":2,"a_b":3,"A_B":4,"_rescued":5,"":6}', layers=2, taken=["day"])
    assert list(found) == ["a_b", "a_b_2", "a_b_3", "A_B_4", "_rescued_2", "_"]
    assert [path_text(each.path) for each in inferred.fields] == ["a.b", '"a.b"', "a_b", "A_B", "_rescued", '""']
    assert '"a.b" is column a_b_2: the name a_b is taken' in inferred.notes


def test_evidence_is_counted_per_kind_and_what_is_missing_too():
    _, inferred = named('{"x":1,"y":{"z":"t"}}', '{"x":1.5}', '{"x":null,"y":{}}', "[1]", layers=2)
    told = {path_text(each.path): str(each) for each in inferred.evidence}
    assert told == {"x": "integer 1, number 1, null 1", "y.z": "string 1, missing 2"}
    assert [(bad.number, bad.reason) for bad in inferred.bad] == [(3, "found an array, wanted one object")]


def test_fields_stand_in_the_order_of_the_documents_and_kinds_that_mix_are_told():
    found, inferred = named('{"b":1,"a":2}', '{"c":1,"b":{"x":1}}', layers=2)
    assert list(found.items()) == [("b", "JSON"), ("a", "BIGINT"), ("c", "BIGINT")]
    assert inferred.notes == ("b is JSON text: it holds integer and object",)


def test_hints_of_the_user_win():
    found, _ = named('{"d":{"x":1,"y":2},"t":"2026-03-01"}', layers=1, types={"d.x": LogicalType("INT"), "t": "JSON"})
    assert found == {"d_x": "INT", "d_y": "BIGINT", "t": "JSON"}
    with pytest.raises(ConfigError, match=r"no sample has a member 'nope'; known: d, t"):
        named('{"d":{"x":1},"t":1}', types={"nope": "JSON"})


def test_layers_beyond_four_are_refused():
    with pytest.raises(ConfigError, match="found 5, wanted 0 to 4"):
        infer([b"{}"], 5)


def test_half_a_surrogate_pair_makes_no_column():
    assert named('{"\\ud800":1,"x":2}')[0] == {"x": "BIGINT"}


def test_a_sample_of_any_size_is_read():
    assert named(json.dumps({"x": "a" * 1_000_000}))[0] == {"x": "STRING"}


@pytest.mark.parametrize("path", [(), ("a",), ("a", "b"), ("a.b",), ("",), ('q"\\', "é"), ("__value__",)])
def test_paths_are_read_as_they_are_written(path):
    assert parse_path(path_text(path)) == path


def test_a_member_called_as_the_whole_message_is_spelled_otherwise():
    assert path_text(("__value__",)) == '"__value__"'
    assert path_text(("a", "__value__")) == "a.__value__"


@pytest.mark.parametrize("text", [".a", "a..b", 'a"b', '"a'])
def test_paths_that_say_nothing_are_refused(text):
    with pytest.raises(ConfigError, match="found no key at character"):
        parse_path(text)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([LakeField(("a",), "x"), LakeField(("b",), "X")], "'a' is column x already"),
        ([LakeField(("a",), "x"), LakeField(("a",), "y")], "field 'a' is there twice"),
        ([LakeField(("a",), "x"), LakeField(("a", "b"), "y")], "'a.b' .* is part of field 'a'"),
        ([LakeField(("a",), "_position")], "the name is taken"),
        ([LakeField(("a",), "x", LogicalType("VARBINARY"))], "found type BYTES, wanted a simple type"),
    ],
)
def test_fields_that_cannot_stand_beside_each_other_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        check_fields(fields)
