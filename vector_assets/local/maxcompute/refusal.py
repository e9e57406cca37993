"""Answers of the protocol that are not success."""

from collections.abc import Mapping


class Refusal(Exception):  # noqa: N818 (an answer of the protocol, not a failure of ours)
    """An answer that is not 2xx: `code` is the class name or ODPS number by which pyodps makes its exception."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = dict(headers or {})


def missing_table(name: str) -> Refusal:
    """The table does not exist."""
    return Refusal(404, "NoSuchTable", f"ODPS-0130131:Table not found - table {name} cannot be resolved")


def missing_partition(spec: str) -> Refusal:
    """The partition does not exist."""
    return Refusal(404, "NoSuchPartition", f"The specified partition does not exist: {spec}")


def invalid(message: str) -> Refusal:
    """The request makes no sense."""
    return Refusal(400, "InvalidArgument", message)
