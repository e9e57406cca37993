"""pyodps's clients with our bounds: every request is tried as often as the policy says, and no more.

pyodps 0.13.2 alone repeats 429 and 308 for ever and 5xx for 127 s, and it repeats over the layer below. Here a request
whose body can be sent twice is repeated by `engine.retry`; what streams its body fails with TransientError, for the
caller to repeat as a whole. Imported when a server is first asked: pyodps takes a second.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from odps import ODPS, accounts
from odps.apis.storage_api.storage_api import StorageApiArrowClient
from odps.config import Config, get_global_options, option_context, set_global_options
from odps.rest import RestClient
from odps.tunnel import TableTunnel

from vector_assets.clients.maxcompute_errors import retriable
from vector_assets.clients.maxcompute_options import Login
from vector_assets.engine.retry import RetryPolicy, call

CONNECT_S, READ_S = 5, 60
_MOVED = 308
_SETTINGS = {"retry_times": 0, "local_timezone": False, "use_legacy_logview": True}
"""No retries of its own; times are UTC."""


def _settings() -> Config:
    with option_context(_SETTINGS) as config:
        return config


_CONFIG = _settings()


@contextmanager
def settings() -> Iterator[None]:
    """pyodps's settings in this thread are ours inside; the process's own stay as they are."""
    before = get_global_options(copy=True)
    set_global_options(_CONFIG)
    try:
        yield
    finally:
        set_global_options(before)


class Rest(RestClient):  # type: ignore[misc]
    """Requests with bounded retries; a clone by `with_retry_enabled(False)` tries once."""

    def __init__(self, *args: Any, policy: RetryPolicy, place: str, **more: Any) -> None:
        super().__init__(*args, **more)
        self._policy = policy
        self._place = place

    def _request_with_retry(self, url: str, method: str, stream: bool = False, **more: Any) -> Any:  # noqa: FBT001, FBT002 (pyodps's)
        def once() -> Any:
            given = dict(more, timeout=more.get("timeout") or (CONNECT_S, READ_S))
            with retriable(self._place):
                return self._request(url, method, stream=stream, **given)

        if not self._retry_enabled or not _is_repeatable(url, method, more.get("data")):
            return once()
        return call(self._policy, once, place=self._place)

    def is_ok(self, resp: Any) -> bool:
        """308 (the slot has moved) is none of the answers that hold what was asked for."""
        return bool(resp.ok) and resp.status_code != _MOVED


def _is_repeatable(url: str, method: str, data: Any) -> bool:
    """False where a body cannot be sent twice, or where sending it twice would run a statement twice."""
    is_statement = method.lower() == "post" and url.partition("?")[0].endswith("/instances")
    return not is_statement and (data is None or isinstance(data, bytes | str | dict))


class Tunnel(TableTunnel):  # type: ignore[misc]
    """The tunnel over such a client."""

    @property
    def tunnel_rest(self) -> Any:
        """The client of the tunnel's own address."""
        found = super().tunnel_rest
        if not isinstance(found, Rest):
            own = self._client
            found = Rest(
                found.account, found.endpoint, found.project, tag="TUNNEL", policy=own._policy, place=own._place
            )
            self._tunnel_rest = found
        return found


class Storage(StorageApiArrowClient):  # type: ignore[misc]
    """The storage API over such a client."""

    def __init__(self, odps: ODPS, table: Any, tunnel: Tunnel, rest: Rest) -> None:
        super().__init__(odps, table, quota_name=tunnel.quota_name)
        self._tunnel_rest = rest


def single(rest: Rest) -> Rest:
    """The same client without retries."""
    clone: Rest = copy.copy(rest)
    clone._retry_enabled = False
    return clone


def open_odps(login: Login, policy: RetryPolicy, place: str) -> ODPS:
    """An entry to the project with our bounds; nothing is asked yet."""
    return _odps(login, rest_client_cls=Rest, rest_client_kwargs={"policy": policy, "place": place})


def plain_odps(login: Login) -> ODPS:
    """pyodps as it is, for code of the user's own; nothing is asked yet."""
    return _odps(login)


def _odps(login: Login, **more: Any) -> ODPS:
    secret = login.access_key.get_secret_value()
    if login.sts_token:
        account = accounts.StsAccount(login.access_id, secret, login.sts_token.get_secret_value())
    else:
        account = accounts.CloudAccount(login.access_id, secret)
    return ODPS(
        account=account,
        project=login.project,
        endpoint=login.endpoint,
        schema=login.schema,
        tunnel_endpoint=login.tunnel_endpoint,
        quota_name=None if login.tunnel_endpoint else login.quota,
        # asked for otherwise, from a service that need not answer yet
        logview_host=login.endpoint,
        overwrite_global=False,
        **more,
    )


def open_tunnel(odps: ODPS, login: Login) -> Tunnel:
    """The project's tunnel; nothing is asked yet. A quota gives way to a tunnel that is named."""
    if login.tunnel_endpoint:
        return Tunnel(odps, endpoint=login.tunnel_endpoint)
    return Tunnel(odps, quota_name=login.quota)
