"""What goes wrong with MaxCompute, in the engine's terms. Nothing here imports pyodps or requests before a request."""

from collections.abc import Iterator
from contextlib import contextmanager

from vector_assets.engine.errors import ConfigError, FatalError, PlanError, TransientError, UnavailableError

SHOWN = 300
"""Characters of the service's message that are passed on."""

_RETRIED = frozenset({308, 408, 429})
# what a service says that does not know signatures of the fourth form: pyodps then signs in the second
_SIGNATURE_ANSWERS = ("need ak v3 support", "accesskey acl denied")
_KEYS = frozenset({"Unauthorized", "AuthorizationRequired", "SignatureNotMatch", "AuthenticationRequestExpired"})
_ENDED_SESSIONS = frozenset(
    {
        "NoSuchDownload", "NoSuchUpload", "NoSuchSession", "StatusConflict", "StreamSessionNotFound",
        "UpsertSessionNotFound",
    }
)  # fmt: skip


class NoTableError(PlanError):
    """The table does not exist."""


class NoPartitionError(PlanError):
    """The partition does not exist."""


class TableModifiedError(FatalError):
    """The rows that a session is a snapshot of have been changed since."""


class SessionEndedError(FatalError):
    """The session has expired, was closed, or is not known: another one can be opened."""


class RefusedError(FatalError):
    """The service refuses what a request holds; asking again would change nothing. `code` is the service's."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


@contextmanager
def retriable(place: str) -> Iterator[None]:
    """Turn what may pass (no answer, cut connections, 308, 408, 429, 5xx) into TransientError, nothing else."""
    import requests
    import urllib3
    from odps import errors

    try:
        yield
    except (errors.ConnectTimeout, requests.exceptions.ConnectTimeout) as error:
        raise UnavailableError(f"{place}: nobody answers in time") from error
    except (requests.exceptions.SSLError, requests.exceptions.ProxyError) as error:
        raise ConfigError(f"{place}: no connection: {type(error).__name__}: {str(error)[:SHOWN]}") from error
    except requests.exceptions.ConnectionError as error:
        if _never_connected(error):
            raise UnavailableError(f"{place}: nobody answers") from error
        raise TransientError(f"{place}: the connection was cut") from error
    except (
        requests.exceptions.ChunkedEncodingError,
        requests.exceptions.ContentDecodingError,
        requests.exceptions.Timeout,
        urllib3.exceptions.HTTPError,
        ConnectionError,
        TimeoutError,
    ) as error:
        raise TransientError(f"{place}: the answer was cut or came too late ({type(error).__name__})") from error
    except errors.BaseODPSError as error:
        status = error.status_code or 0
        if not (status in _RETRIED or status >= 500) or any(a in str(error).lower() for a in _SIGNATURE_ANSWERS):
            raise
        raise TransientError(f"{place}: {status} {_shown(error)}", _pause(error)) from error


@contextmanager
def translated(place: str) -> Iterator[None]:
    """Every error of pyodps as one of ours.

    Raises:
        ConfigError: the key pair, the project or a right is wrong.
        NoTableError: there is no such table or schema.
        NoPartitionError: there is no such partition.
        TableModifiedError: a session's rows have changed.
        SessionEndedError: a session is over.
        RefusedError: anything else that the service refuses.
        TransientError: it may go better later.
    """
    from odps import errors

    try:
        with retriable(place):
            yield
    except errors.BaseODPSError as error:
        raise _of(error, place) from error


def _of(error: BaseException, place: str) -> Exception:
    """Our error for one that trying again does not mend."""
    names = {kind.__name__ for kind in type(error).__mro__}
    code = str(getattr(error, "code", "") or type(error).__name__)
    shown = f"{place}: {_shown(error)}"
    if names & _KEYS or getattr(error, "status_code", 0) == 401:
        return ConfigError(f"{shown}; check accessId and accessKey (or the STS token, if there is one)")
    if "NoSuchProject" in names:
        return ConfigError(f"{shown}; check the option project")
    if "NoPermission" in names:
        return ConfigError(f"{shown}; the account lacks a right")
    if code == "InvalidQuota":
        return ConfigError(f"{shown}; check the option quotaName")
    if "NoSuchPartition" in names:
        return NoPartitionError(shown)
    if code in _ENDED_SESSIONS:
        return SessionEndedError(shown)
    if "NoSuchObject" in names:
        return NoTableError(shown)
    if code == "TableModified" or "TableModified" in names:
        return TableModifiedError(shown)
    return RefusedError(shown, code)


def _shown(error: BaseException) -> str:
    """The service's code and message, without request ids and addresses."""
    code = getattr(error, "code", None)
    message = str(error.args[0]) if error.args else type(error).__name__
    text = f"{code}: {message}" if code and not message.startswith(str(code)) else message
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def _pause(error: BaseException) -> float | None:
    headers = getattr(error, "response_headers", None) or {}
    text = str(headers.get("Retry-After", ""))
    return float(text) if text.isdecimal() else None


def _never_connected(error: BaseException) -> bool:
    """True when the request did not reach anybody."""
    from urllib3.exceptions import ConnectTimeoutError, MaxRetryError, NewConnectionError

    inner = error.args[0] if error.args else None
    reason = inner.reason if isinstance(inner, MaxRetryError) else inner
    return isinstance(reason, NewConnectionError | ConnectTimeoutError)
