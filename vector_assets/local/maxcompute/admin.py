"""What the service has no address for: projects, temporary keys, expiry and faults, for whoever has the secret key."""

import hmac
from typing import Any

import vector_assets
from vector_assets.local.maxcompute.auth import Keys
from vector_assets.local.maxcompute.catalog import Catalog
from vector_assets.local.maxcompute.faults import Faults
from vector_assets.local.maxcompute.http import Reply, Request, json_reply
from vector_assets.local.maxcompute.refusal import Refusal, invalid
from vector_assets.local.maxcompute.sessions import TTL_S, Sessions


class Admin:
    """Requests below `/local`; all but `/local/id` need `Authorization: Bearer <secret key>`."""

    def __init__(self, secret: str, catalog: Catalog, keys: Keys, sessions: Sessions, faults: Faults) -> None:
        self._secret = secret
        self._catalog = catalog
        self._keys = keys
        self._sessions = sessions
        self._faults = faults

    def answer(self, path: tuple[str, ...], request: Request) -> Reply:
        """What a request gives.

        Raises:
            Refusal: the key is wrong, or the request is none of these.
        """
        if path == ("id",):
            return json_reply({"server": "vector-assets maxcompute", "version": vector_assets.__version__})
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), self._secret.encode()):
            raise Refusal(401, "Unauthorized", "the secret key is needed as a bearer token")
        match request.method, path:
            case "POST", ("projects",):
                return self._add_project(request.json())
            case "POST", ("sts",):
                return self._issue(request.json())
            case "POST", ("sessions",):
                return self._set_sessions(request.json())
            case "POST", ("faults",):
                self._faults.add(request.json())
                return json_reply({})
            case "GET", ("faults",):
                return json_reply({"rules": self._faults.rules()})
            case "DELETE", ("faults",):
                self._faults.clear()
                return json_reply({})
        known = "POST projects, sts, sessions, faults; GET faults, id; DELETE faults"
        raise Refusal(404, "NoSuchObject", f"{request.method} /local/{'/'.join(path)}; known: {known}")

    def _add_project(self, body: dict[str, Any]) -> Reply:
        name = body.get("name")
        if not isinstance(name, str) or not name.replace("_", "a").isalnum():
            raise invalid("name must be a word")
        self._catalog.add_project(name, schemas=bool(body.get("schemas", False)))
        return json_reply({})

    def _issue(self, body: dict[str, Any]) -> Reply:
        key = self._keys.issue(float(body.get("seconds", 3600)))
        found = {"access_id": key.access_id, "access_key": key.secret, "token": key.token, "expires": key.expires}
        return json_reply(found)

    def _set_sessions(self, body: dict[str, Any]) -> Reply:
        """`ttl_s` for sessions to come (null: a day), `expire` with an id or "all"."""
        if "ttl_s" in body:
            self._sessions.ttl_s = TTL_S if body["ttl_s"] is None else float(body["ttl_s"])
        expired = 0
        if "expire" in body:
            expired = self._sessions.expire(None if body["expire"] == "all" else str(body["expire"]))
        return json_reply({"expired": expired})
