"""A folder of declarations as Dagster definitions."""

import logging
from pathlib import Path

import dagster as dg

from vector_assets.declare import load_folder
from vector_assets.declare.autoetl_folder import request_scripts
from vector_assets.defs import autoetl, factory

log = logging.getLogger(__name__)


def load(folder: Path) -> dg.Definitions:
    """Definitions of every pipeline declared in a folder.

    Raises:
        ConfigError: a declaration is wrong; all that is wrong is listed, each with its place.
    """
    pipelines = load_folder(folder).pipelines
    if not pipelines:
        log.warning(
            "no pipelines in %s: put a .sql file there, or name another folder by VECTOR_ASSETS_PIPELINES", folder
        )
    scripts = request_scripts(folder)
    made = factory.definitions(pipelines)
    return dg.Definitions.merge(made, autoetl.definitions(scripts)) if scripts else made
