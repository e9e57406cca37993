"""Files of `vector-assets search-setup`: YAML to what a cluster is to have."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from vector_assets.clients.opensearch_wanted import SetUp
from vector_assets.engine import env
from vector_assets.engine.errors import ConfigError, Place

_SECRET = re.compile(r"\$\{secret_values\.([\w.-]+)\}")


def read_setup(file: Path, secret: Callable[[str], str] = env.secret) -> SetUp:
    """What a file says, with its secrets filled in.

    Raises:
        ConfigError: the file cannot be read, is no YAML, lacks or misspells a field, or names a secret that is not set.
    """
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read: {error}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = Place(str(file), mark.line + 1, mark.column + 1) if mark else Place(str(file))
        raise ConfigError(f"no YAML: {error.problem}", place) from error
    if not isinstance(found, dict):
        raise ConfigError(f"{file}: want fields connection, connector, model, pipeline and index")
    try:
        return SetUp.model_validate(_filled(found, secret))
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, each['loc'])) or 'the file'}: {each['msg']}" for each in error.errors()]
        raise ConfigError(f"{file}: {'; '.join(lines)}") from None


def _filled(value: Any, secret: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return _SECRET.sub(lambda found: secret(found[1]), value)
    if isinstance(value, dict):
        return {key: _filled(each, secret) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, secret) for each in value]
    return value
