"""Names to classes, imported when asked for."""

import difflib
import importlib
from collections.abc import Iterable, Mapping
from typing import Any

from vector_assets.engine.errors import ConfigError


def load(registry: Mapping[str, str], role: str, name: str) -> Any:
    """The class that `registry` (name -> "module:Class") knows as `name`.

    Raises:
        ConfigError: unknown name (the known ones are listed), or its client library is not installed.
    """
    if name not in registry:
        raise ConfigError(f"unknown {role} {name!r}{nearest(name, registry)}; known: {', '.join(sorted(registry))}")
    module, _, attribute = registry[name].partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("vector_assets"):
            raise
        extra = module.rpartition(".")[2]
        raise ConfigError(
            f"{role} {name!r} needs the package {error.name}: pip install 'vector-assets[{extra}]'"
        ) from error


def nearest(name: str, known: Iterable[str]) -> str:
    """` (did you mean ...?)` when a known name is close to `name`, else nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""
