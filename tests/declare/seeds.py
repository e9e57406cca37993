"""The seeds' statements, cut out of the documents at run time; nothing of them is kept here."""

import re
from pathlib import Path

import pytest

from vector_assets.engine import env

_FOLDER = Path(__file__).parents[3] / "shared" / "seeds"


def seed(number: int) -> str:
    """The text of a seed document; without the folder the test is skipped, on a CI machine it fails."""
    found = sorted(_FOLDER.glob(f"{number:03d}_*.txt"))
    if not found:
        reason = f"no seed {number:03d} in {_FOLDER}"
        if env.in_ci():
            pytest.fail(reason)
        pytest.skip(reason)
    return found[0].read_text()


def statements(text: str) -> list[str]:
    """Every CREATE TABLE and INSERT INTO of a document as it stands there, up to its semicolon."""
    return re.findall(r"^(?:CREATE (?:TEMPORARY )?TABLE|INSERT INTO)\b.*?;$", text, re.MULTILINE | re.DOTALL)


def flink_step(text: str) -> list[str]:
    """The statements of seed 000's step 3: the two mapping tables and the INSERT."""
    return statements(text[text.index("Step 3:") :])


def ddl_step(text: str) -> str:
    """The psql script of seed 000's step 1, as it stands there: statements, comments and the change of database."""
    step = text[text.index("Step 1:") : text.index("Step 2:")]
    return "\n".join(re.findall(r"^ *(?:\\c .*|--.*|(?:CREATE|ALTER) [^;]*;)$", step, re.MULTILINE)) + "\n"


def with_values(script: str, values: dict[str, str]) -> str:
    """The script with each `<placeholder>` replaced; every other character stays."""
    for name, value in values.items():
        assert f"<{name}>" in script, f"the seed has no placeholder <{name}>"
        script = script.replace(f"<{name}>", value)
    return script
