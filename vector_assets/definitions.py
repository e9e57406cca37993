"""The Dagster entry point: everything declared in the folder of pipelines."""

from vector_assets.defs.folder import load
from vector_assets.engine.env import pipelines_dir

defs = load(pipelines_dir())
