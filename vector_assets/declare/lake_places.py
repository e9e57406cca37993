"""Folders that lake jobs may write to: local, or in an object store by the options of the job's connector."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from vector_assets.declare.flink_options import Secrets, fill_texts
from vector_assets.engine.creation import segments
from vector_assets.engine.errors import ConfigError, Place, TransientError
from vector_assets.engine.options import SinkOptions

STORES = ("abfs", "abfss", "file", "gs", "hdfs", "oss", "s3", "s3a", "s3n")
"""Schemes of places that a job may write to; the client of its format says which of them it knows."""


def why_no_place(path: str) -> str | None:
    """What is wrong with the place of a table; None when it is the same one for every process that reads its text."""
    parts = urlsplit(path)
    names = [name for name in parts.path.split("/") if name]
    is_local = parts.scheme in {"", "file"}
    is_whole = parts.path.startswith("/") and bool(names) if is_local else bool(parts.netloc) or parts.scheme == "hdfs"
    if not is_whole or (not is_local and parts.scheme not in STORES):
        known = ", ".join(STORES)
        return f"want a folder by its whole path, or s3://bucket/folder; known: {known}"
    return "want a path without '..'" if ".." in names else None


def refuse_full_folder(options: SinkOptions, folder: str, owner: str, place: Place) -> None:
    """Make sure that nothing lies in a folder, which need not be there.

    Raises:
        ConfigError: something does; one name is given.
        TransientError: the store does not answer.
    """
    found = _first_name(options, folder)
    if found is not None:
        raise ConfigError(f"{owner}: path {folder} is not empty: it holds {found!r}; choose an empty folder", place)


def _first_name(options: Any, folder: str) -> str | None:
    parts = urlsplit(folder)
    if parts.scheme in {"", "file"}:
        path = Path(parts.path)
        if path.exists() and not path.is_dir():
            return path.name
        return next((each.name for each in path.iterdir()), None) if path.exists() else None
    if hasattr(options, "storage"):
        return next((info.base_name for info in options.storage.files()), None)
    return _first_in_store(dict(options.login.properties), folder)


def _first_in_store(properties: dict[str, str], folder: str) -> str | None:
    import pyarrow.fs as pafs
    from pyiceberg.io.pyarrow import PyArrowFileIO

    parts = urlsplit(folder)
    try:
        store = PyArrowFileIO(properties).fs_by_scheme(parts.scheme, parts.netloc)
        selector = pafs.FileSelector(f"{parts.netloc}{parts.path}", recursive=True, allow_not_found=True)
        return next((info.base_name for info in store.get_file_info(selector)), None)
    except OSError as error:
        raise TransientError(f"path {folder}: cannot be looked at: {error}") from error


def check_database(name: str, path: str, owner: str, place: Place, secrets: Secrets) -> None:
    """Make sure that a Paimon database was declared, meets what it must, and has `path` as its warehouse.

    Raises:
        ConfigError: it is not known here, or its warehouse is another place.
        PlanError: it does not meet every requirement; all that it does not meet is listed.
    """
    from vector_assets.sinks import paimon_database

    database = paimon_database.noted(name)
    if database is None:
        raise ConfigError(
            f"{owner}: database {name} is not known, and a Paimon database is never made by itself: write its CREATE"
            f" EXTERNAL DATABASE {name} WITH DBPROPERTIES (catalog = paimon, {paimon_database.WAREHOUSE} = {path},"
            f" LOCATION = {path.rstrip('/')}/{name}.db/) into a file for `vector-assets target create <file>`",
            place,
        )
    paimon_database.check(
        database, lambda text: fill_texts({name: text}, {name: place}, secrets, offline=False).values[name]
    )
    if segments(database.warehouse) != segments(path):
        raise ConfigError(
            f"{owner}: path {path} is not the warehouse of database {name}, which is {database.warehouse}", place
        )
