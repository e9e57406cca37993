"""A Hive catalog that changes a table only while it holds the lock and the table is the one it looked at.

Import it inside functions: it imports pyiceberg.
"""

from types import TracebackType
from typing import Any

from hive_metastore.ttypes import (
    CheckLockRequest,
    EnvironmentContext,
    LockState,
    NoSuchLockException,
    NoSuchTxnException,
    UnlockRequest,
)
from pyiceberg.catalog.hive import PROP_METADATA_LOCATION, PROP_PREVIOUS_METADATA_LOCATION, HiveCatalog
from pyiceberg.exceptions import CommitFailedException

_EXPECTED = ("expected_parameter_key", "expected_parameter_value")
"""Names by which a metastore that has HIVE-26882 compares before it changes; others pass over them."""


class GuardedHiveCatalog(HiveCatalog):
    """pyiceberg's, whose lock the metastore takes away when it was not heard of for `metastore.txn.timeout`.

    While metadata were written nothing was heard, so the lock is asked for once more before the table is changed.
    """

    @staticmethod
    def _create_hive_client(properties: dict[str, str]) -> Any:
        return _Connection(HiveCatalog._create_hive_client(properties))


class _Connection:
    """Opens and closes pyiceberg's connection."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __enter__(self) -> "_Guarded":
        return _Guarded(self._client.__enter__())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.__exit__(kind, error, trace)


class _Guarded:
    """The metastore's calls, with a look at the lock before a table is changed."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._lock: int | None = None
        self._is_lost = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def lock(self, request: Any) -> Any:
        """Ask for the lock, and remember it."""
        answer = self._client.lock(request)
        self._lock = answer.lockid
        return answer

    def alter_table_with_environment_context(
        self, dbname: str, tbl_name: str, new_tbl: Any, environment_context: EnvironmentContext
    ) -> None:
        """Change the table.

        Raises:
            CommitFailedException: the lock is gone; nothing was changed.
        """
        if self._lock is not None:
            self._check_held(self._lock)
        if (before := new_tbl.parameters.get(PROP_PREVIOUS_METADATA_LOCATION)) is not None:
            environment_context.properties |= dict(zip(_EXPECTED, (PROP_METADATA_LOCATION, before), strict=True))
        self._client.alter_table_with_environment_context(dbname, tbl_name, new_tbl, environment_context)

    def _check_held(self, lock: int) -> None:
        try:
            state = self._client.check_lock(CheckLockRequest(lockid=lock)).state
        except (NoSuchLockException, NoSuchTxnException):
            state, self._is_lost = None, True
        if state != LockState.ACQUIRED:
            raise CommitFailedException("the metastore's lock was lost before the table was changed")

    def unlock(self, request: UnlockRequest) -> None:
        """Give the lock back, unless it is gone."""
        if not self._is_lost:
            self._client.unlock(request)
