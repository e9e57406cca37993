"""Text to Pipeline: one module per front end, one place that loads files and folders."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vector_assets.declare import flink_sql
from vector_assets.declare.flink_options import Secrets
from vector_assets.declare.flink_sql import compile_script, shown_path
from vector_assets.engine import env
from vector_assets.engine.creation import refuse_shared_prefixes
from vector_assets.engine.errors import ConfigError, Place
from vector_assets.engine.pipeline import Pipeline

__all__ = ["Declarations", "collect_folder", "compile_script", "load_file", "load_folder"]


@dataclass(frozen=True, slots=True)
class Declarations:
    """The pipelines of a folder, and one error for every file that has one; such a file gives no pipelines."""

    pipelines: tuple[Pipeline, ...]
    errors: tuple[ConfigError, ...] = ()

    def checked(self) -> tuple[Pipeline, ...]:
        """The pipelines.

        Raises:
            ConfigError: there are errors; with several, the message lists them, one a line.
        """
        if len(self.errors) == 1:
            raise self.errors[0]
        if self.errors:
            listed = "\n".join(f"  {error}" for error in self.errors)
            raise ConfigError(f"{len(self.errors)} declarations are wrong:\n{listed}")
        return self.pipelines


def load_file(path: Path, *, secrets: Secrets = env.secret, offline: bool = False) -> list[Pipeline]:
    """The pipelines of one declaration; with `offline`, secrets that are not set get a stand-in.

    Raises:
        ConfigError: at the place that is wrong, or the kind of file is not supported.
    """
    if path.suffix == ".sql":
        return flink_sql.load_file(path, secrets=secrets, offline=offline)
    if path.suffix in {".yaml", ".yml"}:
        raise ConfigError("YAML declarations are not supported yet; write a *.sql file", Place(shown_path(path)))
    raise ConfigError("not a declaration; known endings: .sql", Place(shown_path(path)))


def collect_folder(path: Path, *, secrets: Secrets = env.secret, offline: bool = False) -> Declarations:
    """The pipelines of every declaration in a folder and below, in the order of the files' names.

    Files with other endings and names that begin with a dot or an underscore are passed over. Two pipelines of one name
    or one target are an error of the later file.
    """
    pipelines: list[Pipeline] = []
    errors: list[ConfigError] = []
    if not path.is_dir():
        return Declarations((), (ConfigError(f"no folder of declarations at {path}"),))
    for file in _files(path):
        try:
            found = load_file(file, secrets=secrets, offline=offline)
            _check_taken(found, pipelines)
        except ConfigError as error:
            errors.append(error)
        else:
            pipelines += found
    return Declarations(tuple(pipelines), tuple(errors))


def load_folder(path: Path, *, secrets: Secrets = env.secret, offline: bool = False) -> Declarations:
    """As `collect_folder`, and nothing is wrong.

    Raises:
        ConfigError: any file is wrong; the message names every one of them.
    """
    declarations = collect_folder(path, secrets=secrets, offline=offline)
    declarations.checked()
    return declarations


def _files(path: Path) -> Iterator[Path]:
    for file in sorted(path.rglob("*")):
        is_hidden = any(part.startswith((".", "_")) for part in file.relative_to(path).parts)
        if file.suffix in {".sql", ".yaml", ".yml"} and file.is_file() and not is_hidden:
            yield file


def _check_taken(found: list[Pipeline], before: list[Pipeline]) -> None:
    names = {pipeline.name.lower(): pipeline for pipeline in before}
    targets = {pipeline.claims["target"]: pipeline for pipeline in before if "target" in pipeline.claims}
    for pipeline in found:
        for what, shown, other in (
            ("pipeline name", pipeline.name, names.get(pipeline.name.lower())),
            ("target", pipeline.target, targets.get(pipeline.claims.get("target", ""))),
        ):
            if other is not None:
                raise ConfigError(f"{what} {shown} is taken by {other.place}", pipeline.place)
        refuse_shared_prefixes(pipeline, before)
