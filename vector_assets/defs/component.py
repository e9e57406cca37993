"""Pipelines as a Dagster component, for projects that are made of `defs.yaml` files."""

from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from vector_assets.declare import compile_attributes, load_folder
from vector_assets.defs import factory
from vector_assets.engine.env import pipelines_dir
from vector_assets.engine.errors import ConfigError
from vector_assets.engine.registry import nearest


class PipelinesComponent(dg.Component, dg.Model, dg.Resolvable):
    """The pipelines declared in a folder."""

    path: str | None = Field(
        None, description="Folder of declarations, from defs.yaml's own; default: VECTOR_ASSETS_PIPELINES, `pipelines`."
    )
    names: list[str] | None = Field(None, description="Only these pipelines; default: all.")

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Assets, sensors, checks and jobs of the pipelines.

        Raises:
            ConfigError: a declaration is wrong, or a name is not declared.
        """
        folder = (Path(context.path) / self.path).resolve() if self.path else pipelines_dir()
        found = load_folder(folder)
        pipelines = found.pipelines
        known = [pipeline.name for pipeline in pipelines]
        for name in self.names or ():
            if name not in known:
                listed = ", ".join(known) or "none"
                raise ConfigError(
                    f"{context.path}: unknown pipeline {name!r}{nearest(name, known)}; declared: {listed}"
                )
        chosen = [p for p in pipelines if self.names is None or p.name in self.names]
        return factory.definitions(chosen, found.captures if self.names is None else ())


class LakeJobComponent(dg.Component, dg.Model, dg.Resolvable):
    """A lake job with the keys of its form; see docs/lake-jobs.md. Secrets are written `${secret_values.name}`."""

    job: dict[str, Any] = Field(description="The keys of `job:`.")
    datasource: dict[str, Any] | None = Field(
        None, description="The keys of `datasource:`; left out where the job's `source` holds them."
    )

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Asset, sensor, checks and jobs of the lake job.

        Raises:
            ConfigError: at the line of defs.yaml that is wrong.
        """
        return factory.definitions([compile_attributes(Path(context.path) / "defs.yaml", str(self.job.get("name")))])
