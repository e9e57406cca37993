"""A lake job's form changed in its file: keys, and items of `columns:`."""

from typing import TYPE_CHECKING

from vector_assets.cli.yaml_files import Change, path_of
from vector_assets.engine.errors import ConfigError, TransientError

if TYPE_CHECKING:
    from vector_assets.cli.job_form import Mapping
    from vector_assets.declare.lake_shelf import Item, Shelf
    from vector_assets.engine.pipeline import Pipeline

_FIXED = "is fixed when a job is created"
_NAMED_WITH_DOTS = (("settings",), ("destination", "options"), ("source", "properties"))


def edited(
    item: "Item", shelf: "Shelf", values: dict[str, str], mapping: "Mapping"
) -> tuple[Change, tuple[str, ...]]:  # fmt: skip
    """The file with the job's changes, compiled as a whole before anything is written, and what the next run will
    change of the table because of them.

    Raises:
        ConfigError: a key is unknown or fixed, a field is not there, or the job would be wrong.
        PlanError: the table cannot take the columns.
    """
    from vector_assets.declare.lake_job import compile_job
    from vector_assets.declare.lake_shelf import Shelf, items_of
    from vector_assets.declare.yaml_edit import with_value

    text, number = item.document.text, item.document.number
    for key, value in values.items():
        path = _path(key)
        if path[0] in {"name", "destination", "columns"} and path[:2] != ("destination", "options"):
            raise ConfigError(_refused(path[0], key))
        text = with_value(text, number, ("job", *path), value, item.file)
    text = _with_columns(text, item, mapping)
    fresh = items_of(text, item.file)
    others = [each for each in shelf.items if each.file != item.file]
    mine, all_of_them = next(each for each in fresh if each.document.number == number), Shelf((*others, *fresh))
    changes = _asked(compile_job(mine, all_of_them, offline=True), mine, all_of_them)
    return Change(path_of(item), text), changes


def _path(key: str) -> tuple[str, ...]:
    """The keys on the way to a value; names of settings, options and properties have dots of their own."""
    for holder in _NAMED_WITH_DOTS:
        if key.startswith(f"{'.'.join(holder)}."):
            return (*holder, key.split(".", len(holder))[-1])
    return tuple(key.split("."))


def _refused(part: str, key: str) -> str:
    if part == "columns":
        return "columns are changed by --rename, --retype, --add and --remove, or in the file"
    return f"--set {key}: the {part} of a job {_FIXED}; create another job"


def _asked(pipeline: "Pipeline", item: "Item", shelf: "Shelf") -> tuple[str, ...]:
    """Refuse what is fixed, and columns that the table cannot take; a table that cannot be asked is told."""
    from vector_assets.cli.declared import books, has_ledger
    from vector_assets.cli.job_problems import changes_of
    from vector_assets.cli.output import warn
    from vector_assets.declare.lake_job import compile_job
    from vector_assets.engine.creation import refuse_changes

    if not has_ledger():
        return ()
    with books() as open_books:
        ledger = open_books.ledger
        refuse_changes(ledger, pipeline)
        try:
            return changes_of(compile_job(item, shelf), ledger)
        except (ConfigError, TransientError) as error:
            warn(f"the table was not asked whether it takes these columns: {error}")
            return ()


def _with_columns(text: str, item: "Item", mapping: "Mapping") -> str:
    from vector_assets.declare.lake_form import FieldMapping
    from vector_assets.declare.lake_job import fields_of, read_job
    from vector_assets.declare.yaml_edit import flow, with_item, with_value, without_key
    from vector_assets.formats.lake_fields import path_text

    number, columns = item.document.number, ("job", "columns")
    form = read_job(item)
    fields = fields_of(form, item.document)
    numbers = {path_text(each.path): place for place, each in enumerate(fields)}
    after = {path_text(each.path): each for each in mapping.applied(fields)}
    for path, name in mapping.renamed.items():
        text = with_value(text, number, (*columns, numbers[path], "name"), name, item.file)
    for path in mapping.retyped:
        text = with_value(text, number, (*columns, numbers[path], "type"), after[path].spelled, item.file)
    for path in mapping.added:
        text = with_item(text, number, columns, flow(FieldMapping.of(after[path])), item.file)
    for path in sorted(mapping.removed, key=lambda each: -numbers[each]):
        text = without_key(text, number, (*columns, numbers[path]), item.file)
        text = with_item(text, number, ("job", "ignore"), flow(path), item.file)
    return text
