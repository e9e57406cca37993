"""Where a job's books are, for jobs that several threads of a test run."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from vector_assets.engine import env

_ENVIRONMENT = threading.Lock()


@contextmanager
def placed(environment: Mapping[str, str]) -> Iterator[None]:
    """The environment of a job while its books are opened; threads wait for each other, for they share it."""
    with _ENVIRONMENT, env.overridden(**environment):
        yield
