"""Lake jobs as the files of the folder say now: a code location keeps the declarations that it was loaded with."""

import threading
from pathlib import Path

from vector_assets.declare import folder_stamp, shelf_of_folder
from vector_assets.declare.lake_job import compile_job
from vector_assets.declare.lake_shelf import Shelf
from vector_assets.engine.env import pipelines_dir
from vector_assets.engine.errors import ConfigError
from vector_assets.engine.pipeline import Pipeline

_lock = threading.Lock()
_read: dict[Path, tuple[object, Shelf]] = {}
_compiled: dict[tuple[Path, str], tuple[object, Pipeline]] = {}


def names() -> list[str]:
    """The lake jobs that the folder's files declare now."""
    _, shelf = _shelf()
    return [item.name for item in shelf.of("job") if item.name]


def lake_job(name: str) -> Pipeline:
    """A lake job as it is declared now; made again only after a file has changed.

    Raises:
        ConfigError: it is not declared, or wrong.
    """
    stamp, shelf = _shelf()
    key = (pipelines_dir(), name)
    with _lock:
        known = _compiled.get(key)
    if known is not None and known[0] == stamp:
        return known[1]
    made = compile_job(shelf.find("job", name), shelf)
    with _lock:
        _compiled[key] = (stamp, made)
    return made


def today(pipeline: Pipeline) -> Pipeline:
    """A lake job of the folder as its file has it now; any other pipeline, and one whose file is wrong, as it is."""
    is_of_folder = Path(pipeline.place.file).absolute().is_relative_to(pipelines_dir())
    if pipeline.creation is None or not is_of_folder:
        return pipeline
    try:
        return lake_job(pipeline.name)
    except ConfigError:
        return pipeline


def _shelf() -> tuple[object, Shelf]:
    folder = pipelines_dir()
    stamp = folder_stamp(folder)
    with _lock:
        known = _read.get(folder)
    if known is None or known[0] != stamp:
        known = (stamp, shelf_of_folder(folder))
        with _lock:
            _read[folder] = known
    return known
