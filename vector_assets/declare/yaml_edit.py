"""Single values of a YAML file changed in its text, so that comments and order stay as somebody wrote them."""

from typing import Any

import yaml

from vector_assets.declare.yaml_text import Document, Path
from vector_assets.engine.errors import ConfigError


def scalar(value: object) -> str:
    """A text or a number as YAML spells it on one line, quoted where it has to be."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = yaml.safe_dump(str(value), default_flow_style=True, allow_unicode=True, width=1 << 30)
    plain: str = text.removesuffix("...\n").removesuffix("\n")
    if isinstance(value, int | float):
        return str(value)
    # inside of brackets these end a plain text, or begin something else
    needs_quotes = plain == value and (any(mark in plain for mark in ",[]{}?") or plain.startswith(":"))
    return "'" + plain.replace("'", "''") + "'" if needs_quotes else plain


def with_value(text: str, number: int, path: Path, value: object, file: str = "") -> str:
    """The file's text with one scalar put in place of what was there, or added at the end of its mapping.

    Raises:
        ConfigError: what should hold the key is no mapping.
    """
    document = _document(text, number, file)
    spelled = flow(value)
    try:
        entry = document.entry(path)
    except KeyError:
        return _added(document, path, spelled)
    return _replaced(text, entry.value, spelled)


def with_lines(text: str, number: int, path: Path, lines: list[str], file: str = "") -> str:
    """The file's text with a key added whose value is written on lines of its own, below the others of its mapping.

    Raises:
        ConfigError: the mapping around it is written on one line.
    """
    document = _document(text, number, file)
    holder = document.entry(path[:-1]).value
    if holder.flow_style:
        raise document.error("write this with a line for each key", path[:-1])
    indent = " " * holder.value[0][0].start_mark.column
    block = "\n".join([f"{indent}{scalar(path[-1])}:", *(f"{indent}  {line}" for line in lines)])
    at = text.find("\n", _end(holder))
    head, tail = (text, "\n") if at < 0 else (text[:at], text[at:])
    return f"{head}\n{block}{tail}"


def with_item(text: str, number: int, path: Path, spelled: str, file: str = "") -> str:
    """The file's text with an item more at the end of a list, which is made where there is none."""
    document = _document(text, number, file)
    try:
        holder = document.entry(path).value
    except KeyError:
        return with_lines(text, number, path, [f"- {spelled}"], file)
    if holder.flow_style or not holder.value:
        at = _end(holder) - 1
        return text[:at] + (", " if holder.value else "") + spelled + text[at:]
    indent = " " * (holder.start_mark.column)
    at = text.find("\n", _end(holder))
    head, tail = (text, "\n") if at < 0 else (text[:at], text[at:])
    return f"{head}\n{indent}- {spelled}{tail}"


def without_key(text: str, number: int, path: Path, file: str = "") -> str:
    """The file's text without a key (or an item of a list) and its value; the same where it is not there."""
    document = _document(text, number, file)
    try:
        entry = document.entry(path)
    except KeyError:
        return text
    holder = document.entry(path[:-1]).value
    if holder.flow_style:
        values = {key: item for key, item in _plain_items(document, path[:-1]) if key != path[-1]}
        left: Any = values if isinstance(holder, yaml.MappingNode) else list(values.values())
        return _replaced(text, holder, flow(left))
    start = text.rfind("\n", 0, entry.key.start_mark.index) + 1
    end = text.find("\n", _end(entry.value))
    return text[:start] + ("" if end < 0 else text[end + 1 :])


def without_document(text: str, number: int) -> str:
    """The file's text without one of its documents; what stands above its first key goes with it."""
    starts = [0]
    for token in yaml.scan(text, Loader=yaml.SafeLoader):
        if isinstance(token, yaml.DocumentStartToken) and text[: token.start_mark.index].strip():
            starts.append(token.start_mark.index)
    bounds = [*starts, len(text)]
    left = text[: bounds[number]] + text[bounds[number + 1] :]
    return left.removeprefix("---\n") if number == 0 else left


def flow(value: Any) -> str:
    """A list or mapping on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{scalar(key)}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(flow(item) for item in value) + "]"
    return scalar(value)


def _document(text: str, number: int, file: str) -> Document:
    return next(document for document in Document.all_of(text, file) if document.number == number)


def _plain_items(document: Document, path: Path) -> list[tuple[str | int, Any]]:
    value = document.value(path)
    return list(value.items()) if isinstance(value, dict) else list(enumerate(value))


def _replaced(text: str, node: Any, spelled: str) -> str:
    start, end = node.start_mark.index, _end(node)
    glue = " " if start and text[start - 1] == ":" else ""
    is_block = end > start and "\n" in text[start:end]
    if is_block and not getattr(node, "flow_style", True):
        # a block value begins on a line of its own
        start = text.rfind(":", 0, start) + 1
        glue = " "
    return text[:start] + glue + spelled + text[end:]


def _added(document: Document, path: Path, spelled: str) -> str:
    text = document.text
    known = 0
    while known < len(path) - 1 and document.value(path[: known + 1]) is not None:
        known += 1
    holder = document.entry(path[:known]).value
    if not isinstance(holder, yaml.MappingNode):
        raise document.error(f"{'.'.join(map(str, path))} cannot be set: this holds no keys", path[:known])
    for key in reversed(path[known + 1 :]):
        spelled = "{" + f"{scalar(key)}: {spelled}" + "}"
    line = f"{scalar(path[known])}: {spelled}"
    if holder.flow_style:
        at = _end(holder) - 1
        comma = ", " if holder.value else ""
        return text[:at].rstrip() + comma + line + text[at:]
    indent = " " * holder.value[0][0].start_mark.column
    at = text.find("\n", _end(holder))
    head, tail = (text, "") if at < 0 else (text[:at], text[at:])
    return f"{head}\n{indent}{line}{tail}"


def _end(node: Any) -> int:
    """Where a value's own text ends: a block's end mark stands behind the comments that follow it."""
    if isinstance(node, yaml.ScalarNode) or node.flow_style:
        end = int(node.end_mark.index)
        if isinstance(node, yaml.ScalarNode) and node.style in {"|", ">"}:
            return len(node.start_mark.buffer[:end].rstrip("\n\0")) if node.start_mark.buffer else end - 1
        return end
    last = node.value[-1]
    return _end(last[1] if isinstance(node, yaml.MappingNode) else last)


def check_same_but(before: str, after: str, number: int, path: Path, file: str) -> None:
    """Make sure that an edit changed nothing but what it was to change.

    Raises:
        ConfigError: the text is spelled in a way that cannot be edited; nothing was written.
    """
    old, new = ({each.number: each.value() for each in Document.all_of(text, file)} for text in (before, after))
    for values in (old, new):
        _drop(values.get(number), path)
    if old != new:
        raise ConfigError(f"{file}: {'.'.join(map(str, path))} cannot be changed by command here; edit the file")


def _drop(value: Any, path: Path) -> None:
    """Take the value at the path out, and mappings around it that it leaves empty."""
    if isinstance(value, list) and isinstance(path[0], int) and path[0] < len(value):
        _drop(value[path[0]], path[1:])
    if not isinstance(value, dict):
        return
    if len(path) > 1:
        _drop(value.get(path[0]), path[1:])
    if len(path) == 1 or value.get(path[0]) in ({}, None):
        value.pop(path[0], None)
