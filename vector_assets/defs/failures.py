"""Errors of the engine as failures of a Dagster run."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg

from vector_assets.engine.errors import PositionLostError, TransientError, VectorAssetsError
from vector_assets.engine.pipeline import Pipeline


@contextmanager
def told(pipeline: Pipeline) -> Iterator[None]:
    """An error of the engine ends the block as `dg.Failure`; only a transient one may be tried again.

    Raises:
        dg.Failure: the engine raised one of its errors.
    """
    try:
        yield
    except VectorAssetsError as error:
        raise dg.Failure(
            description=str(error),
            metadata=_metadata(pipeline, error),
            allow_retries=isinstance(error, TransientError),
        ) from error


def _metadata(pipeline: Pipeline, error: VectorAssetsError) -> dict[str, Any]:
    known: dict[str, Any] = {
        "error": type(error).__name__,
        "pipeline": pipeline.name,
        "declared": str(pipeline.place),
        "target": pipeline.target,
    }
    if isinstance(error, PositionLostError):
        known["outcome"] = error.kind
        known["missing"] = {split: list(lost) for split, lost in error.missing.items()}
    return known
