"""Iceberg catalogs through pyiceberg, imported when one is opened: 2 s that no `--help` shall pay.

The catalog classes are made by hand and not by pyiceberg's `load_catalog`, which would mix in a file in the user's home
and environment variables that no declaration names.
"""

import errno
import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vector_assets.engine.errors import ConfigError, FatalError, TransientError, UnavailableError

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

CATALOGS = {
    "sql": "pyiceberg.catalog.sql:SqlCatalog",
    "rest": "pyiceberg.catalog.rest:RestCatalog",
    "glue": "pyiceberg.catalog.glue:GlueCatalog",
    "hive": "vector_assets.clients.iceberg_hive:GuardedHiveCatalog",
}
"""Kinds of catalogs, and the classes that speak to them."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM})
_GLUE_REFUSES = frozenset(
    {"AccessDeniedException", "UnrecognizedClientException", "InvalidSignatureException", "ExpiredTokenException"}
)
_GLUE_CONFLICT = "ConcurrentModificationException"
_USER_INFO = re.compile(r"(?<=//)[^/@\s]+(?=@)")


@dataclass(frozen=True, slots=True)
class CatalogLogin:
    """A catalog: its kind, its name, and pyiceberg's properties, credentials among them. `place` is for messages."""

    kind: str
    name: str
    place: str
    properties: Mapping[str, str] = field(repr=False)


_RETRIES = "glue.max-retries"


class ConflictError(TransientError):
    """Another writer changed the table first: nothing was committed."""


def open_catalog(login: CatalogLogin) -> "Catalog":
    """Connect to a catalog; that of SQLite is made where it is missing.

    Raises:
        ConfigError: a client package is missing, or the catalog refuses the credentials.
        UnavailableError: it cannot be reached.
    """
    module, _, name = CATALOGS[login.kind].partition(":")
    with told(login.place):
        try:
            catalog: Catalog = getattr(importlib.import_module(module), name)(login.name, **_given(login))
        except ImportError as error:
            extra = {"sql": "sql-sqlite,sql-postgres", "rest": "rest"}.get(login.kind, login.kind)
            raise ConfigError(f"{login.place}: {said(error)}: pip install 'pyiceberg[{extra}]'") from error
        if login.kind == "glue":
            _watch_repeats(catalog)
        return catalog


def _given(login: CatalogLogin) -> dict[str, str | int]:
    """The properties as the catalog takes them: pyiceberg hands a number for boto3 on as it is given."""
    option, found = _RETRIES, login.properties.get(_RETRIES)
    if found is None:
        return dict(login.properties)
    if not found.isdecimal():
        raise ConfigError(f"{login.place}: option '{option}': found {found!r}, wanted a whole number")
    return {**login.properties, option: int(found)}


def _watch_repeats(catalog: Any) -> None:
    """Make an update that Glue refused the second time unknown: the first may be the one that another came before.

    botocore sends a request again by itself when no answer came. pyiceberg takes the refusal for a commit that did not
    land, and removes the manifests of one that did.
    """

    def look(parsed: dict[str, Any], **_: object) -> None:
        from pyiceberg.exceptions import CommitStateUnknownException

        repeats = parsed.get("ResponseMetadata", {}).get("RetryAttempts", 0)
        if repeats and parsed.get("Error", {}).get("Code") == _GLUE_CONFLICT:
            raise CommitStateUnknownException(f"the update was sent {repeats + 1} times, and the last was refused")

    catalog.glue.meta.events.register("after-call.glue.UpdateTable", look)


def said(error: BaseException) -> str:
    """What an exception says, without credentials, statements or parameters."""
    text = str(getattr(error, "orig", None) or error) or type(error).__name__
    return _USER_INFO.sub("***", text.splitlines()[0] if text else text)[:500]


class told:  # noqa: N801  (used as the function `contextmanager` would make)
    """Errors of pyiceberg, of the catalog's driver and of the file system as ours, by their names: nothing is imported.

    NoSuchTableError, NoSuchNamespaceError and TableAlreadyExistsError pass: the caller knows what they mean.

    Raises:
        ConflictError: another writer changed the table first.
        TransientError: it may or may not have been done.
        UnavailableError: the catalog cannot be reached.
        ConfigError: credentials or a property are wrong.
        FatalError: the store is full or refuses to be written, or a file is damaged.
    """

    def __init__(self, place: str) -> None:
        self.place = place

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        translated = _translated(error, self.place) if isinstance(error, Exception) else None
        if translated is not None:
            raise translated from error


def _translated(error: Exception, place: str) -> Exception | None:
    for module, names, make in _TRANSLATIONS:
        if error.__class__.__module__.partition(".")[0] != module:
            continue
        if {kind.__name__ for kind in type(error).__mro__} & names:
            return make(place, error)
    if isinstance(error, FileNotFoundError):
        # most likely of a snapshot that expired after we looked at the table: the next look is at a newer one
        return TransientError(f"{place}: a file is missing: {said(error)}")
    if isinstance(error, OSError):
        if error.errno in _FULL:
            return FatalError(f"{place}: cannot write: {errno.errorcode[error.errno]}: {said(error)}")
        return TransientError(f"{place}: {said(error)}")
    if isinstance(error, ValueError):
        return ConfigError(f"{place}: {said(error)}")
    return None


def _transient(place: str, error: Exception) -> Exception:
    return TransientError(f"{place}: {said(error)}")


def _unavailable(place: str, error: Exception) -> Exception:
    return UnavailableError(f"{place}: UNAVAILABLE: {said(error)}")


def _database(place: str, error: Exception) -> Exception:
    text = said(error)
    if "authentication failed" in text or ("role" in text and "does not exist" in text):
        return ConfigError(f"{place}: the catalog's database refuses the credentials: {text}")
    if "disk is full" in text:
        return FatalError(f"{place}: cannot write the catalog: {text}")
    return _unavailable(place, error)


def _refused(place: str, error: Exception) -> Exception:
    return ConfigError(f"{place}: the catalog refuses us: {said(error)}")


def _fatal(place: str, error: Exception) -> Exception:
    return FatalError(f"{place}: {said(error)}")


def _glue(place: str, error: Exception) -> Exception:
    code = str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))
    if code in _GLUE_REFUSES:
        return _refused(place, error)
    return _conflict(place, error) if code == _GLUE_CONFLICT else _transient(place, error)


def _conflict(place: str, error: Exception) -> Exception:
    return ConflictError(f"{place}: another writer was first: {said(error)}")


# by module and name of the class (or of a class it derives from), so that nothing is imported for their sake
_TRANSLATIONS: tuple[tuple[str, frozenset[str], Callable[[str, Exception], Exception]], ...] = (
    ("pyiceberg", frozenset({"CommitFailedException", "ValidationException", "WaitingForLockException"}), _conflict),
    ("pyiceberg", frozenset({"CommitStateUnknownException", "ServerError"}), _transient),
    ("pyiceberg", frozenset({"ServiceUnavailableError"}), _unavailable),
    (
        "pyiceberg",
        frozenset({"UnauthorizedError", "ForbiddenError", "OAuthError", "AuthorizationExpiredError", "SignError"}),
        _refused,
    ),
    ("pyiceberg", frozenset({"BadRequestError", "RESTError", "NoSuchPropertyException"}), _fatal),
    ("requests", frozenset({"ConnectionError", "Timeout"}), _unavailable),
    ("requests", frozenset({"RequestException"}), _transient),
    ("sqlalchemy", frozenset({"OperationalError", "InterfaceError", "TimeoutError"}), _database),
    ("sqlalchemy", frozenset({"SQLAlchemyError"}), _fatal),
    ("botocore", frozenset({"EndpointConnectionError", "HTTPClientError", "NoRegionError"}), _unavailable),
    ("botocore", frozenset({"NoCredentialsError", "PartialCredentialsError"}), _refused),
    ("botocore", frozenset({"ClientError"}), _glue),
    ("thrift", frozenset({"TTransportException"}), _unavailable),
    ("hive_metastore", frozenset({"TException"}), _transient),
    ("thrift", frozenset({"TException"}), _transient),
    ("pyarrow", frozenset({"ArrowException"}), _fatal),
)
