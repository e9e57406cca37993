"""Options of an embedding model: where it is, what is asked of it, and what it may cost."""

from datetime import timedelta
from typing import Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from vector_assets.engine.core import Json
from vector_assets.engine.options import Duration, Flag, MemorySize, Options


class EmbeddingOptions(Options):
    """What `EMBED(...)` asks; in a script by `SET 'vector-assets.embedding.<option>' = '...'`."""

    url: str = Field()
    """Address of an OpenAI-compatible service, such as `https://host/v1`; `/embeddings` is added if missing."""
    model: str = Field(min_length=1)
    """The model's name, as the service spells it."""
    api_key: SecretStr | None = Field(None, alias="api-key")
    """Sent as a bearer token; write `${secret_values.<name>}`."""
    dimensions: int | None = Field(None, ge=1, le=65_536)
    """How many numbers a vector has: sent with every request, and checked. Without it the first answer says it."""
    send_dimensions: Flag = Field(default=True, alias="send-dimensions")
    """`false` for models that refuse the field `dimensions` in a request; the answer is checked all the same."""
    encoding_format: Literal["float", "base64"] = Field("float", alias="encoding-format")
    """How vectors come back; `base64` is a third of the bytes, where the service knows it."""
    revision: str | None = Field(None, min_length=1)
    """Which weights the model has, part of the cache's key. Without it the key has the address instead: the same model
    elsewhere is asked anew."""
    prefix: str = Field("")
    """Put before every text, for models that want an instruction such as `passage: `."""
    max_characters: int | None = Field(None, alias="max-characters", ge=1)
    """Most characters of a text, the prefix not counted; what happens to longer ones says `too-long`."""
    too_long: Literal["reject", "truncate"] = Field("reject", alias="too-long")
    """`reject` makes a dead letter of a text that is too long, `truncate` embeds its beginning."""
    batch_size: int = Field(64, alias="batch-size", ge=1, le=4096)
    """Most texts of a request; not more than the service takes."""
    batch_bytes: MemorySize = Field(1 << 20, alias="batch-bytes", ge=1024)
    """Most bytes of a request's texts; a longer text goes alone."""
    concurrency: int = Field(4, ge=1, le=256)
    """Most requests to the service at once, those of all pipelines of the process together."""
    requests_per_minute: int | None = Field(None, alias="requests-per-minute", ge=1)
    """Requests are sent at least so far apart, those of all pipelines of the process together."""
    timeout: Duration = Field(timedelta(seconds=60), gt=timedelta(0))
    """Longest wait for an answer."""
    retries: int = Field(8, ge=0, le=100)
    """How often a request is sent again after 408, 429, 500 or a time-out."""
    retry_wait: Duration = Field(timedelta(seconds=1), alias="retry-wait")
    """Pause before that, where the answer has no `Retry-After`."""
    outage: Duration = Field(timedelta(seconds=60))
    """How long a service that cannot be reached (or answers 502, 503, 504) is waited for."""
    price: float | None = Field(None, ge=0)
    """Price of a million tokens, in whatever currency `max-cost` is meant."""
    max_cost: float | None = Field(None, alias="max-cost", ge=0)
    """Most that the pipeline may pay in a day (UTC): what would go beyond it is not sent, and the run stops."""

    @field_validator("url")
    @classmethod
    def _is_address(cls, text: str) -> str:
        scheme, _, rest = text.strip().rstrip("/").partition("://")
        host = rest.partition("/")[0]
        if scheme not in {"http", "https"} or not host or "?" in rest or "#" in rest:
            raise ValueError("want http://host:port/v1 or https://host/v1")
        if "@" in host:
            raise ValueError("want an address without credentials; use api-key")
        whole = f"{scheme}://{rest}"
        return whole if whole.endswith("/embeddings") else f"{whole}/embeddings"

    @model_validator(mode="after")
    def _has_price(self) -> Self:
        if self.max_cost is not None and self.price is None:
            raise ValueError("option 'max-cost' wants option 'price', the price of a million tokens")
        if self.too_long == "truncate" and self.max_characters is None:
            raise ValueError("option 'too-long' = 'truncate' wants option 'max-characters'")
        return self

    @property
    def space(self) -> list[Json]:
        """What two vectors of one text have in common when they are the same; the text itself is hashed as it is sent.

        An address stands in for a revision that is not given.
        """
        where: Json = ["revision", self.revision] if self.revision is not None else ["url", self.url]
        return [self.model, where, self.dimensions]

    def cost(self, tokens: float) -> float:
        """What so many tokens cost; 0 without a price."""
        return tokens * (self.price or 0.0) / 1e6
