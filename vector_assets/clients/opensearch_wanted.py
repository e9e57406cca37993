"""What a PolarSearch cluster is to have, as a file of `vector-assets search-setup` says it."""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from vector_assets.clients.opensearch import Login


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Connection(_Part):
    """The cluster."""

    hosts: str
    """`http(s)://host:port`, several separated by `;`."""
    username: str | None = None
    password: SecretStr | None = None
    verify_certificates: bool = True
    ca_file: str | None = None

    @property
    def login(self) -> Login:
        """The same for the client."""
        hosts = tuple(Login.parse_host(each) for each in self.hosts.split(";"))
        verifies = self.verify_certificates
        return Login(hosts, self.username, self.password, verifies=verifies, ca_file=self.ca_file)

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if (self.username is None) != (self.password is None):
            raise ValueError("username and password go together: give both or none")
        for each in self.hosts.split(";"):
            Login.parse_host(each)
        return self


class ModelGroup(_Part):
    """A model group."""

    name: str
    description: str = ""


class Connector(_Part):
    """How the cluster calls the model: `scheme://endpoint/v1/embeddings`."""

    name: str
    description: str = ""
    version: int = 1
    model: str
    endpoint: str
    scheme: Literal["http", "https"] = "https"
    api_key: SecretStr | None = None
    private_ip: bool = False
    """Let the cluster call private addresses, for a model in its own network."""


class Model(_Part):
    """The model as pipelines and queries name it."""

    name: str
    description: str = ""


class Pipeline(_Part):
    """The ingest pipeline; `batch_size` documents are embedded by one request."""

    name: str
    description: str = ""
    field_map: dict[str, str] = Field(min_length=1)
    batch_size: int | None = Field(None, ge=1)


class Index(_Part):
    """The index; `properties` are its mapping, `settings` are added to `knn` and `default_pipeline`."""

    name: str
    properties: dict[str, dict[str, Any]]
    settings: dict[str, Any] = Field(default_factory=dict)


class SetUp(_Part):
    """A file of `vector-assets search-setup`."""

    connection: Connection
    trusted_endpoints: tuple[str, ...] = ()
    model_group: ModelGroup | None = None
    connector: Connector
    model: Model
    test_input: str = "hello world"
    pipeline: Pipeline
    index: Index

    @field_validator("index")
    @classmethod
    def _has_properties(cls, index: Index) -> Index:
        if not index.properties:
            raise ValueError("properties are empty: the index needs at least a knn_vector field")
        return index

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for text, vector in self.pipeline.field_map.items():
            found = self.index.properties.get(vector)
            if found is None or found.get("type") != "knn_vector":
                raise ValueError(f"pipeline.field_map writes {vector}, which is no knn_vector among index.properties")
            if not isinstance(found.get("dimension"), int):
                raise ValueError(f"index.properties.{vector} has no dimension")
            if text not in self.index.properties:
                raise ValueError(f"pipeline.field_map reads {text}, which is not among index.properties")
        return self

    @property
    def dimensions(self) -> dict[str, int]:
        """Dimension of each vector field that the pipeline fills."""
        return {vector: self.index.properties[vector]["dimension"] for vector in self.pipeline.field_map.values()}
