"""Who may ask: HMAC-SHA1 signatures (V2 and V4 form) of a key pair, or of a temporary one with its STS token."""

import base64
import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote

from vector_assets.local.maxcompute.http import Request
from vector_assets.local.maxcompute.refusal import Refusal
from vector_assets.local.maxcompute.store import Store

_SIGNED = ("content-md5", "content-type", "date")
_PREFIX = "aliyun_v4"


@dataclass(frozen=True)
class Key:
    """A key pair; a temporary one has a token and an end."""

    access_id: str
    secret: str
    token: str = ""
    expires: float = 0.0


class Keys:
    """The server's key pair and the temporary ones it gave out, which survive a restart."""

    def __init__(self, store: Store, access_id: str, secret: str) -> None:
        self._store = store
        self._keys = {access_id: Key(access_id, secret)}
        self._keys.update({name: Key(**body) for name, body in store.documents("key").items()})

    def issue(self, seconds: float) -> Key:
        """A temporary key pair with an STS token, valid for so long."""
        key = Key(f"STS.{secrets.token_hex(8)}", secrets.token_hex(16), secrets.token_hex(32), time.time() + seconds)
        self._keys[key.access_id] = key
        self._store.put("key", key.access_id, vars(key))
        return key

    def check(self, request: Request) -> Key:
        """The key that signed a request.

        Raises:
            Refusal: no signature, an unknown key, a wrong signature, a missing, wrong or expired token.
        """
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        identity, _, signature = given.rpartition(":")
        if kind != "ODPS" or not signature:
            raise Refusal(401, "Unauthorized", "ODPS-0410051: Invalid credentials - no signature in the request")
        access_id, *place = identity.split("/")
        key = self._keys.get(access_id)
        if key is None:
            raise Refusal(401, "Unauthorized", "ODPS-0410051: Invalid credentials - accessKeyId not found")
        secret = _derived(key.secret, place) if place else key.secret.encode()
        wanted = base64.b64encode(hmac.new(secret, canonical(request).encode(), hashlib.sha1).digest()).decode()
        if not hmac.compare_digest(wanted, signature):
            raise Refusal(
                403, "SignatureNotMatch", "ODPS-0410042: Invalid signature value - the signature does not match"
            )
        self._check_token(key, request.headers.get("authorization-sts-token", ""))
        return key

    def _check_token(self, key: Key, token: str) -> None:
        if not hmac.compare_digest(key.token, token):
            raise Refusal(401, "Unauthorized", "ODPS-0410051: Invalid credentials - wrong STS token")
        if key.expires and time.time() >= key.expires:
            raise Refusal(401, "Unauthorized", "ODPS-0410051: Invalid credentials - the STS token has expired")


def _derived(secret: str, place: list[str]) -> bytes:
    """The key of the V4 form `id/date/region/odps/aliyun_v4_request` (odps/accounts.py)."""
    key = (_PREFIX + secret).encode()
    for part in place:
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key


def canonical(request: Request) -> str:
    """What a client signs (odps/accounts.py, `_build_canonical_str`)."""
    headers: dict[str, Any] = {name: request.headers.get(name, "") for name in _SIGNED}
    headers.update({name: value for name, value in request.headers.items() if name.startswith("x-odps-")})
    # the client reads its own address once more after decoding it: so do we
    path, _, query = unquote(request.target).partition("?")
    asked = dict(parse_qsl(query, keep_blank_values=True))
    headers.update({name: value for name, value in asked.items() if name.startswith("x-odps-")})
    lines = [request.method]
    for name in sorted(headers):
        lines.append(f"{name}:{headers[name]}" if name.startswith("x-odps-") else headers[name])
    listed = "&".join(f"{name}={value}" if value else name for name, value in sorted(asked.items()))
    lines.append(f"{path}?{listed}" if query else path)
    return "\n".join(lines)
