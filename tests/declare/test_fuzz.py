"""Spacing, comments and the case of keywords change nothing; broken scripts raise nothing but ConfigError."""

import contextlib
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.declare.scripts import WORKING, compiled, one
from vector_assets.declare.flink_dialect import Flink
from vector_assets.engine.errors import ConfigError

TOKENS = [(WORKING[token.start : token.end + 1]) for token in Flink().tokenize(WORKING)]
GAPS = st.sampled_from([" ", "\n", "\t ", "\r\n", " -- it's; a `comment`\n", "/* it's; */", " /* a\n--b */ "])
EXPECTED = one(WORKING)


@settings(max_examples=40, deadline=None)
@given(gaps=st.lists(GAPS, min_size=len(TOKENS), max_size=len(TOKENS)), upper=st.booleans())
def test_any_spacing_and_case_gives_the_same_pipeline(gaps: list[str], upper: bool) -> None:  # noqa: FBT001
    text = "".join(_recased(token, upper=upper) + gap for token, gap in zip(TOKENS, gaps, strict=True))
    pipeline = one(text)
    assert pipeline.fingerprint == EXPECTED.fingerprint
    assert pipeline.source_table == EXPECTED.source_table
    assert pipeline.sink_table.columns == EXPECTED.sink_table.columns


def _recased(token: str, *, upper: bool) -> str:
    is_word = re.fullmatch(r"[A-Z][A-Z ]*", token)
    return token if not is_word else token.upper() if upper else token.lower()


@settings(max_examples=150, deadline=None)
@given(
    start=st.integers(0, len(WORKING)),
    length=st.integers(0, 40),
    piece=st.sampled_from(
        ["", "'", "`", "(", ")", ",", ";", "/*", "--", "*", "<", "SELECT", "FROM", "1", "é", "\x00", "{", '"']
    ),
)
def test_broken_script_raises_nothing_but_config_error(start: int, length: int, piece: str) -> None:
    with contextlib.suppress(ConfigError):
        compiled(WORKING[:start] + piece + WORKING[start + length :])
