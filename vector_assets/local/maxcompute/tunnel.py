"""Where the tunnel is, by quota."""

from vector_assets.local.maxcompute.http import Reply, Request
from vector_assets.local.maxcompute.refusal import Refusal

QUOTAS = ("default", "local_quota")
"""Quotas there are: the shared one, and one to name."""


def quota_of(request: Request) -> str:
    """The quota a request names.

    Raises:
        Refusal: there is no such quota.
    """
    name = request.query.get("quotaName", "")
    if name and name not in QUOTAS:
        raise Refusal(400, "InvalidQuota", f"quota {name} does not exist; known: {', '.join(QUOTAS)}")
    return name or QUOTAS[0]


def service(request: Request, address: str) -> Reply:
    """Host and port of the tunnel, without a scheme.

    Raises:
        Refusal: there is no such quota.
    """
    quota_of(request)
    return Reply(address.encode())
