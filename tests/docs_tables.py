"""The options tables in docs/, made from the option models; `python -m tests.docs_tables` writes them anew."""

import re
from importlib import import_module
from pathlib import Path

from pydantic import SecretStr
from pydantic_core import PydanticUndefined

DOCS = Path(__file__).parent.parent / "docs"
MARKER = re.compile(r"(<!-- options: (\S+):(\S+) -->\n)(?:\|.*\n)*")


def table(model) -> str:
    """One row per option: name as users spell it, default, what its docstring says."""
    rows = ["| option | default | meaning |", "|---|---|---|"]
    for name, field in model.model_fields.items():
        if (field.alias or name) not in model.known():
            continue
        meaning = " ".join((field.description or "").split()).replace("|", "\\|")
        rows.append(f"| `{field.alias or name}` | {_default(field)} | {meaning} |")
    return "\n".join(rows)


def _default(field) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None or value is PydanticUndefined or isinstance(value, SecretStr) or value in ({}, ()):
        return ""
    return f"`{_spelled(value)}`"


def _spelled(value) -> str:
    if hasattr(value, "total_seconds"):
        seconds = value.total_seconds()
        return f"{seconds:g} s" if seconds >= 1 else f"{seconds * 1000:g} ms"
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1 << 20 and value % (1 << 20) == 0:
        return f"{value >> 20} MB"
    return str(getattr(value, "value", value)).replace("|", "\\|")


def rendered(text: str) -> str:
    """A page with its tables made anew."""
    return MARKER.sub(lambda m: m[1] + table(getattr(import_module(m[2]), m[3])) + "\n", text)


def pages() -> list[Path]:
    """Every page."""
    return sorted(DOCS.glob("*.md"))


if __name__ == "__main__":
    for page in pages():
        page.write_text(rendered(page.read_text()))
