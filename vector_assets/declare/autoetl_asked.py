"""A link that a MySQL client asked for, while it is run: what the client wants by now, and what the client is told."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vector_assets.declare.autoetl_folder import RequestScript, request_scripts
from vector_assets.declare.autoetl_requests import DRIVEN, Request
from vector_assets.engine import env, links, operate
from vector_assets.engine.core import Json
from vector_assets.engine.errors import ConfigError, VectorAssetsError
from vector_assets.engine.session import Session

log = logging.getLogger(__name__)
_LOOK_SECONDS = 1.0
"""How often a run looks whether its client has paused, resumed or dropped the link."""


class Asked:
    """The request of a session's pipeline; of one that nobody asked for, nothing is looked at and nobody is told."""

    def __init__(self, session: Session, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._session = session
        self._clock = clock
        self._name = session.pipeline.name
        self._script = _script_of(session)
        self._request = self._newest(self._script.noted(session.ledger)) if self._script is not None else None
        self._look_at = float("-inf")
        self._looks = 0

    def _newest(self, requests: list[Request]) -> Request | None:
        return next((each for each in reversed(requests) if each.name == self._name), None)

    def look(self) -> None:
        """Take up what the client wants now, if it is time to look; pauses hold at once.

        A second look says that the first one was followed by no error, which the client is told.

        Raises:
            ConfigError: the link was dropped, or is another one now.
        """
        if self._script is None or self._clock() < self._look_at:
            return
        self._look_at = self._clock() + _LOOK_SECONDS
        self._looks += 1
        if self._looks == 2:
            self._report(None)
        try:
            found = self._newest(self._script.refresh(self._session.ledger))
        except VectorAssetsError as error:
            log.info("%s: requests as they were last seen: %s", self._script.path, error)
            found = self._newest(self._script.noted(self._session.ledger))
        if found is None or found.is_dropped:
            raise ConfigError(f"link {self._name} was dropped by a MySQL client")
        if self._request is not None and found.arguments != self._request.arguments:
            raise ConfigError(f"link {self._name} was asked for anew, with another mapping: run it again")
        self._request = found

    def begin(self) -> None:
        """Read all rows anew where the link of this name that ran before had another mapping."""
        if self._request is not None:
            begin_anew_if_changed(self._session, self._request)

    @contextmanager
    def told(self) -> Iterator[None]:
        """What goes wrong inside is told to the client, and that nothing does."""
        try:
            yield
        except VectorAssetsError as error:
            self._report(f"failed: {error}")
            raise
        self._report(None)

    def _report(self, status: str | None) -> None:
        if self._script is None or self._request is None:
            return
        try:
            self._script.report(self._request, status)
        except VectorAssetsError as error:
            log.warning("%s: the client that asked for it is not told: %s", self._name, error)


def _script_of(session: Session) -> RequestScript | None:
    """The script that takes the request, None where nobody asked."""
    pipeline = session.pipeline
    if pipeline.link is None or not pipeline.is_idle:
        return None
    name = Path(pipeline.place.file).name
    return next((each for each in request_scripts(env.pipelines_dir()) if each.path.name == name), None)


def begin_anew_if_changed(session: Session, request: Request) -> None:
    """Read all rows anew when the link of this name that ran before had another mapping; note this one."""
    name, arguments = request.name, list[Json](request.arguments)
    before = links.noted(session.ledger, name, DRIVEN)
    is_activated = session.ledger.is_activated(name, session.pipeline.target)
    if before is not None and before != arguments and is_activated:
        operate.reset(session, "initial", reason=f"request {request.id} maps other columns than the one before")
    links.note(session.ledger, name, DRIVEN, arguments)
