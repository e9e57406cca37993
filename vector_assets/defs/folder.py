"""A folder of declarations as Dagster definitions."""

import logging
from pathlib import Path

import dagster as dg

from vector_assets.declare import load_folder
from vector_assets.declare.autoetl_folder import request_scripts
from vector_assets.defs import autoetl, factory, newcomers

log = logging.getLogger(__name__)


def load(folder: Path) -> dg.Definitions:
    """Definitions of every pipeline declared in a folder, and what runs lake jobs that are declared there later.

    Raises:
        ConfigError: a declaration is wrong; all that is wrong is listed, each with its place.
    """
    found, scripts = load_folder(folder), request_scripts(folder)
    if not found.pipelines and not found.captures and not scripts:
        log.warning(
            "no pipelines in %s: put a .sql file there, or name another folder by VECTOR_ASSETS_PIPELINES", folder
        )
    made = [factory.definitions(found.pipelines, found.captures), newcomers.definitions(found.pipelines)]
    return dg.Definitions.merge(*made, *([autoetl.definitions(scripts)] if scripts else []))
