"""YAML changed in its text: one value is another, everything else stays, comments too."""

import string

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vector_assets.declare import yaml_edit
from vector_assets.declare.yaml_text import Document
from vector_assets.engine.errors import ConfigError

TEXT = """\
# above é
job:
  name: first   # the name
  destination:
    type: managed
    path:
  # between
  columns:
    - {field: a, type: INT}   # integer 3
    - field: b
      type: STRING
# below
---
datasource: {name: s, properties: {}}
"""


def value_of(text: str, number: int = 0):
    return next(each for each in Document.all_of(text, "f") if each.number == number).value()


@pytest.mark.parametrize(
    ("number", "path", "value", "line"),
    [
        (0, ("job", "name"), "x: y", "  name: 'x: y'   # the name"),
        (0, ("job", "destination", "path"), "/p", "    path: /p"),
        (0, ("job", "destination", "table"), "t", "    table: t"),
        (0, ("job", "resources", "units"), "4", "  resources: {units: '4'}"),
        (0, ("job", "columns", 0, "type"), "DECIMAL(2, 1)", "    - {field: a, type: 'DECIMAL(2, 1)'}   # integer 3"),
        (0, ("job", "columns", 1, "name"), "c", "      name: c"),
        (1, ("datasource", "name"), "t", "datasource: {name: t, properties: {}}"),
        (1, ("datasource", "topic"), "o", "datasource: {name: s, properties: {}, topic: o}"),
        (1, ("datasource", "properties", "a.b"), "c", "datasource: {name: s, properties: {a.b: c}}"),
    ],
)
def test_a_value_is_changed_or_added_in_its_place(number, path, value, line):
    after = yaml_edit.with_value(TEXT, number, path, value)
    assert line in after.splitlines()
    yaml_edit.check_same_but(TEXT, after, number, path, "f")
    changed = [line for line in after.splitlines() if line not in TEXT.splitlines()]
    assert changed == [line]


def test_items_and_keys_are_added_and_taken_away():
    text = yaml_edit.with_item(TEXT, 0, ("job", "columns"), "{field: c}")
    assert value_of(text)["job"]["columns"][2] == {"field": "c"}
    assert yaml_edit.without_key(text, 0, ("job", "columns", 2)) == TEXT
    assert value_of(yaml_edit.without_key(TEXT, 0, ("job", "columns", 1)))["job"]["columns"] == [
        {"field": "a", "type": "INT"}
    ]
    assert "- {type: INT}   # integer 3" in yaml_edit.without_key(TEXT, 0, ("job", "columns", 0, "field"))
    text = yaml_edit.with_lines(TEXT, 0, ("job", "ignore"), ["- a", "- b"])
    assert value_of(text)["job"]["ignore"] == ["a", "b"]
    assert yaml_edit.without_key(TEXT, 0, ("job", "nothing")) == TEXT


def test_a_document_is_taken_out_of_its_file():
    assert yaml_edit.without_document(TEXT, 0) == "datasource: {name: s, properties: {}}\n"
    assert yaml_edit.without_document(TEXT, 1) == TEXT.partition("---")[0]


def test_an_edit_that_would_change_more_is_refused():
    with pytest.raises(ConfigError, match="cannot be changed by command here; edit the file"):
        yaml_edit.check_same_but(TEXT, TEXT.replace("managed", "path"), 0, ("job", "name"), "f")


@settings(max_examples=150, deadline=None)
@given(
    st.text(
        st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"]) | st.sampled_from(string.punctuation)
    )
)
@example("0',")
def test_any_text_comes_back_as_it_was_written(text):
    for path in (("job", "name"), ("job", "columns", 0, "type"), ("job", "new")):
        after = yaml_edit.with_value(TEXT, 0, path, text)
        (document, _) = Document.all_of(after, "f")
        # an empty text and the words for null are read as nothing unless they are quoted
        assert document.value(path) == text
        assert after.count("#") == TEXT.count("#") + text.count("#")
    assert yaml.safe_load(yaml_edit.flow({"a": [text]})) == {"a": [text]}
