"""What every command shares: results on stdout, everything else on stderr, errors as one line and an exit code."""

import inspect
import json
import logging
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from vector_assets.engine.errors import ConfigError, VectorAssetsError

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, for programs.")]
PipelineArgument = Annotated[str, typer.Argument(metavar="PIPELINE", help="Name of a pipeline.", show_default=False)]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

LogLevel = Literal["debug", "info", "warning", "error"]
_WIDTH_OF_FILES = 200
"""Columns of a table that is not shown on a terminal: nothing is cut."""

stderr = Console(stderr=True)
_log_handler: logging.Handler | None = None


class Group(TyperGroup):
    """The root of all commands: an error of ours ends the command as one line on stderr and exit code 1."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command.

        Raises:
            typer.Exit: with code 1 after a VectorAssetsError.
        """
        try:
            return super().invoke(ctx)
        except VectorAssetsError as error:
            if ctx.params.get("debug"):
                traceback.print_exception(error, file=sys.stderr)
            else:
                typer.echo(f"error: {error}", err=True)
            raise typer.Exit(1) from error


def examples(*lines: str) -> str:
    """The epilog of a command's help: one example a line."""
    return "\n".join(("[bold]Examples[/bold]", *(f"  {line}".replace("[", "\\[") for line in lines)))


def command(app: typer.Typer, *lines: str, **settings: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function a command of `app`; its docstring is the help, `lines` are the examples below it."""

    def added(function: Callable[..., None]) -> Callable[..., None]:
        return app.command(help=unwrapped(function.__doc__), epilog=examples(*lines), **settings)(function)

    return added


def unwrapped(text: str | None) -> str:
    """Paragraphs without the line breaks of the source, which the help would keep."""
    paragraphs = inspect.cleandoc(text or "").split("\n\n")
    return "\n\n".join(paragraph.replace("\n", " ") for paragraph in paragraphs)


def usage(message: str) -> NoReturn:
    """End the command as wrongly used (exit code 2)."""
    raise typer.BadParameter(message)


def confirm(question: str, *, is_confirmed: bool) -> None:
    """Ask, unless `--yes` was given.

    Raises:
        ConfigError: the answer is no, or nobody is there to answer.
    """
    if is_confirmed:
        return
    try:
        answer = typer.confirm(question, err=True)
    except typer.Abort:
        typer.echo(err=True)
        raise ConfigError("nobody answered: nothing was changed; give --yes to go on without asking") from None
    if not answer:
        raise ConfigError("not confirmed: nothing was changed")


class _PlainHandler(logging.Handler):
    """Lines on whatever standard error is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the record."""
        typer.echo(self.format(record), err=True)


def configure_logging(level: LogLevel) -> None:
    """Send the log to stderr, above a progress bar if there is one; once, whoever logged there before."""
    global _log_handler
    root = logging.getLogger()
    if _log_handler is not None:
        root.removeHandler(_log_handler)
    if stderr.is_terminal:
        from rich.logging import RichHandler

        _log_handler = RichHandler(console=stderr, show_path=False, log_time_format="%H:%M:%S", markup=False)
        _log_handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        _log_handler = _PlainHandler()
        _log_handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root.addHandler(_log_handler)
    root.setLevel(level.upper())


def emit(value: object) -> None:
    """Print one JSON document on stdout."""
    typer.echo(json.dumps(value, indent=2, default=str, ensure_ascii=False))


def stdout() -> Console:
    """Where results go; wide when it is a file, so that nothing is cut."""
    return Console(width=None if sys.stdout.isatty() else _WIDTH_OF_FILES, highlight=False)


def say(text: str, style: str = "") -> None:
    """Print a line of a result; brackets are text."""
    stdout().print(Text(printable(text, keep="\n"), style=style), soft_wrap=True)


def warn(text: str) -> None:
    """Print a warning on stderr."""
    typer.echo(f"warning: {text}", err=True)


def heading(text: str) -> None:
    """Print the heading of a part of a result."""
    say(f"\n{text}", "bold")


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Sequence[str] = ()) -> None:
    """Print a table; the columns named in `right` hold numbers."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text("" if cell is None else shown(cell)) for cell in row))
    _print(table)


def show_pairs(pairs: Iterable[tuple[str, object]]) -> None:
    """Print names and values, one a line."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(name, Text("" if value is None else shown(value)))
    _print(table)


def _print(table: Table) -> None:
    """Print a table; in a file its lines do not end in blanks."""
    console = stdout()
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as captured:
        console.print(table)
    typer.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def printable(text: str, keep: str = "") -> str:
    """Text without control characters, which would command the terminal: they are shown as escapes."""
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


def shown(value: object) -> str:
    """A value for people: whole numbers by thousands, lists by commas."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, value))
    return printable(str(value))


def moment(ms: int | None) -> str | None:
    """A time of the ledger in ISO 8601, UTC."""
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")


def ago(ms: int) -> str:
    """How long ago a time of the ledger was, in the largest whole unit."""
    seconds = max(0, int(time.time() - ms / 1000))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


@contextmanager
def working(what: str) -> Iterator["Spinner"]:
    """A line on stderr that says what a slow step is doing; plain lines where stderr is no terminal."""
    spinner = Spinner(what)
    if not stderr.is_terminal:
        yield spinner
        return
    with stderr.status(Text(what)) as status:
        spinner.status = status
        yield spinner


class Spinner:
    """Call it with what is being done now."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.status: Any = None

    def __call__(self, message: str) -> None:
        """Show the message."""
        if self.status is not None:
            self.status.update(Text(f"{self.what}: {message}"))
        else:
            stderr.print(Text(message), soft_wrap=True)
