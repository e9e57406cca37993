"""A PolarSearch cluster made ready for vectors: connector, model, ingest pipeline and index, one request each.

Requests are those of the document, field by field; what is there already is left alone, so the set-up may be repeated
at any time, also after it broke off. Nothing but the cluster says how far it came.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from vector_assets.clients.opensearch import Client, MissingError, RefusedError
from vector_assets.clients.opensearch_wanted import Connector, SetUp
from vector_assets.engine.core import canonical
from vector_assets.engine.errors import ConfigError, PlanError, TransientError

Say = Callable[[str], None]
Action = Literal["make", "change", "there", "skip", "check"]

_ENDPOINTS = "plugins.ml_commons.trusted_connector_endpoints_regex"
_PRIVATE = "plugins.ml_commons.connector.private_ip_enabled"
_ML = "/_plugins/_ml"
_NO_KEY = "none"
"""Sent where the model needs no key: the server refuses a connector without credentials."""
_DEPLOY_S = 120.0
_PREDICT_S = 60.0
_POLL_S = 0.2
_OWN_FAULT, _ATTEMPTS = 500, 4
_NEW = "<made by the step before>"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do, or found done: the request it takes (None where it takes none) and what came of it."""

    name: str
    action: Action
    method: str = ""
    path: str = ""
    body: Any = None
    note: str = ""
    id: str = ""


@dataclass(frozen=True, slots=True)
class Ready:
    """What a set-up leaves: the deployed model and the index."""

    model_id: str
    connector_id: str
    index: str
    dimension: int
    steps: tuple[Step, ...]

    @property
    def made(self) -> int:
        """Steps that changed the cluster."""
        return sum(step.action in {"make", "change"} for step in self.steps)


class Builder:
    """Looks at a cluster step by step and does what is missing."""

    def __init__(self, client: Client, wanted: SetUp) -> None:
        self._client = client
        self._wanted = wanted

    def plan(self) -> tuple[Step, ...]:
        """What would be done, nothing being done; ids that a step would make are spelled as such."""
        return tuple(self._steps(lambda _step: _NEW, is_dry=True))

    def run(self, say: Say = lambda _text: None) -> Ready:
        """Do what is missing, and leave a model that answers and an index that takes its vectors.

        Raises:
            PlanError: what is there contradicts what is wanted, or the model answers another dimension.
            ConfigError: the cluster refuses the credentials.
            TransientError: the cluster or the model does not answer.
        """
        steps = []
        for step in self._steps(self._do, is_dry=False):
            say(f"{step.name}: {step.note or step.action}")
            steps.append(step)
        ids = {step.name: step.id for step in steps}
        dimension = next(iter(self._wanted.dimensions.values()))
        return Ready(ids["model"], ids["connector"], self._wanted.index.name, dimension, tuple(steps))

    def _do(self, step: Step) -> str:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                answer = self._client.ask(step.method, step.path, step.body)
                break
            except RefusedError as error:
                # machine learning answers 500 while it waits for its own indices
                if error.status != _OWN_FAULT or attempt == _ATTEMPTS:
                    raise
                time.sleep(attempt)
        return str(answer.get("model_id") or answer.get("connector_id") or answer.get("model_group_id") or "")

    def _steps(self, do: Callable[[Step], str], *, is_dry: bool) -> Iterator[Step]:
        def done(step: Step) -> Step:
            if step.action not in {"make", "change"}:
                return step
            return Step(step.name, step.action, step.method, step.path, step.body, step.note, do(step))

        yield done(self._settings())
        group = done(self._model_group()) if self._wanted.model_group else None
        if group:
            yield group
        connector = done(self._connector())
        yield connector
        model = done(self._model(connector.id, group.id if group else None))
        yield model
        yield self._deploy(model.id, is_dry=is_dry)
        yield self._test(model.id, is_dry=is_dry)
        yield done(self._pipeline(model.id))
        yield done(self._index())

    def _settings(self) -> Step:
        """The trusted endpoints, those on the cluster kept."""
        found = self._client.ask("GET", "/_cluster/settings", params={"flat_settings": "true"})
        current = {**found.get("persistent", {}), **found.get("transient", {})}
        there = current.get(_ENDPOINTS, [])
        there = [there] if isinstance(there, str) else list(there)
        missing = [each for each in self._wanted.trusted_endpoints if each not in there]
        body: dict[str, Any] = {_ENDPOINTS: [*there, *missing]} if missing else {}
        if self._wanted.connector.private_ip and str(current.get(_PRIVATE, "")).lower() != "true":
            body[_PRIVATE] = True
        if not body:
            return Step("settings", "there", note="the endpoints are trusted already")
        note = f"trust {', '.join(missing)}" if missing else "let the cluster call private addresses"
        if there and missing:
            note += f", beside {len(there)} that are trusted already"
        return Step("settings", "make", "PUT", "/_cluster/settings", {"persistent": body}, note)

    def _model_group(self) -> Step:
        group = self._wanted.model_group
        assert group is not None
        found = self._named("model_groups", group.name)
        if found:
            return Step("model group", "there", note=f"{group.name} is there: {found[0][0]}", id=found[0][0])
        body = {"name": group.name, "description": group.description}
        return Step("model group", "make", "POST", f"{_ML}/model_groups/_register", body, f"register {group.name}")

    def _connector(self) -> Step:
        body = connector_body(self._wanted.connector)
        same = canonical(_comparable(body))
        others = self._named("connectors", self._wanted.connector.name)
        for number, found in others:
            if canonical(_comparable(found)) == same:
                return Step("connector", "there", note=f"{body['name']} is there: {number}", id=number)
        note = f"create {body['name']}"
        if others:
            note += f" ({len(others)} of this name have other settings)"
        return Step("connector", "make", "POST", f"{_ML}/connectors/_create", body, note)

    def _model(self, connector_id: str, group_id: str | None) -> Step:
        model = self._wanted.model
        if connector_id != _NEW:
            for number, found in self._named("models", model.name):
                if found.get("connector_id") == connector_id:
                    return Step("model", "there", note=f"{model.name} is there: {number}", id=number)
        body = {
            "name": model.name,
            "function_name": "remote",
            **({"model_group_id": group_id} if group_id else {}),
            "description": model.description,
            "connector_id": connector_id,
        }
        return Step("model", "make", "POST", f"{_ML}/models/_register", body, f"register {model.name}")

    def _deploy(self, model_id: str, *, is_dry: bool) -> Step:
        path = f"{_ML}/models/{model_id}/_deploy"
        if model_id != _NEW and self._state(model_id) == "DEPLOYED":
            return Step("deploy", "there", note="the model is deployed", id=model_id)
        if not is_dry:
            self._client.ask("POST", path)
            self._await_deployed(model_id)
        return Step("deploy", "make", "POST", path, note="deploy the model", id=model_id)

    def _state(self, model_id: str) -> str:
        return str(self._client.ask("GET", f"{_ML}/models/{model_id}").get("model_state", ""))

    def _await_deployed(self, model_id: str) -> None:
        deadline = time.monotonic() + _DEPLOY_S
        while (state := self._state(model_id)) != "DEPLOYED":
            if state == "DEPLOY_FAILED":
                raise PlanError(f"{self._client.place}: model {model_id} cannot be deployed: see the cluster's log")
            if time.monotonic() > deadline:
                raise TransientError(
                    f"{self._client.place}: model {model_id} is {state or 'in no state'} after {_DEPLOY_S:g} s"
                )
            time.sleep(_POLL_S)

    def _test(self, model_id: str, *, is_dry: bool) -> Step:
        path = f"{_ML}/models/{model_id}/_predict"
        body = {"parameters": {"input": [self._wanted.test_input]}}
        wanted = self._wanted.dimensions
        if is_dry:
            sizes = ", ".join(f"{field} {size}" for field, size in wanted.items())
            return Step("test", "check", "POST", path, body, f"the model's dimension is that of {sizes}", model_id)
        answer = self._client.ask("POST", path, body, timeout_s=_PREDICT_S)
        dimension = _dimension(answer)
        for name, size in wanted.items():
            if size != dimension:
                raise PlanError(
                    f"{self._client.place}: model {self._wanted.connector.model} answers {dimension} dimensions, field"
                    f" {name} of index {self._wanted.index.name} has {size}"
                )
        return Step("test", "check", "POST", path, body, f"the model answers {dimension} dimensions", model_id)

    def _pipeline(self, model_id: str) -> Step:
        wanted = self._wanted.pipeline
        processor: dict[str, Any] = {"model_id": model_id, "field_map": wanted.field_map}
        if wanted.batch_size is not None:
            processor["batch_size"] = wanted.batch_size
        body = {"description": wanted.description, "processors": [{"text_embedding": processor}]}
        path = f"/_ingest/pipeline/{wanted.name}"
        found = (self._client.find(path) or {}).get(wanted.name)
        if found is None:
            return Step("pipeline", "make", "PUT", path, body, f"make {wanted.name}")
        if canonical(found) == canonical(body):
            return Step("pipeline", "there", note=f"{wanted.name} is there", id=wanted.name)
        return Step("pipeline", "change", "PUT", path, body, f"{wanted.name} is there and differs: replace it")

    def _index(self) -> Step:
        wanted, path = self._wanted.index, f"/{self._wanted.index.name}"
        settings = {"knn": True, "default_pipeline": self._wanted.pipeline.name, **wanted.settings}
        found = self._client.find(path)
        if found is None:
            body = {"settings": {"index": settings}, "mappings": {"properties": wanted.properties}}
            return Step("index", "make", "PUT", path, body, f"make {wanted.name}")
        if len(found) != 1:
            raise PlanError(f"{self._client.place}: {wanted.name} is an alias of several indices")
        (there,) = found.values()
        missing = self._missing_fields(there["mappings"].get("properties", {}))
        if missing:
            body = {"properties": missing}
            return Step("index", "change", "PUT", f"{path}/_mapping", body, f"add the fields {', '.join(missing)}")
        index = there["settings"]["index"]
        if index.get("knn") != "true":
            raise PlanError(f"{self._client.place}: index {wanted.name} was made without knn: make another one")
        if index.get("default_pipeline") != self._wanted.pipeline.name:
            changed = {"index": {"default_pipeline": self._wanted.pipeline.name}}
            note = f"its default pipeline is {index.get('default_pipeline', 'none')}: change it"
            return Step("index", "change", "PUT", f"{path}/_settings", changed, note)
        return Step("index", "there", note=f"{wanted.name} is there", id=wanted.name)

    def _missing_fields(self, there: dict[str, Any]) -> dict[str, Any]:
        """Fields that the index lacks.

        Raises:
            PlanError: a field is there with another type or dimension.
        """
        missing = {}
        for name, wanted in self._wanted.index.properties.items():
            found = there.get(name)
            if found is None:
                missing[name] = wanted
                continue
            for what in ("type", "dimension"):
                if found.get(what) != wanted.get(what):
                    raise PlanError(
                        f"{self._client.place}: field {name} of index {self._wanted.index.name} has {what}"
                        f" {found.get(what)}, wanted {wanted.get(what)}: a mapping stays, make another index"
                    )
        return missing

    def _named(self, what: str, name: str) -> list[tuple[str, dict[str, Any]]]:
        """Objects of machine learning by name, oldest first: id and source."""
        self._refresh(what)
        body = {"query": {"term": {"name.keyword": name}}, "size": 100}
        try:
            hits = self._client.ask("POST", f"{_ML}/{what}/_search", body)["hits"]["hits"]
        except MissingError:
            # nothing of the kind was ever made
            return []
        found = [(hit["_id"], hit["_source"]) for hit in hits]
        return sorted(found, key=lambda pair: (pair[1].get("created_time", 0), pair[0]))

    def _refresh(self, what: str) -> None:
        """What was registered a moment ago is to be found; where it may not be asked for, a second later."""
        index = {"model_groups": "model-group", "connectors": "connector", "models": "model"}[what]
        try:
            self._client.ask("POST", f"/.plugins-ml-{index}/_refresh")
        except (MissingError, ConfigError):
            return


def connector_body(connector: Connector) -> dict[str, Any]:
    """The request that creates a connector."""
    key = connector.api_key.get_secret_value() if connector.api_key else None
    headers = {"Authorization": "Bearer ${credential.api_key}"} if key else {}
    return {
        "name": connector.name,
        "description": connector.description,
        "version": connector.version,
        "protocol": "http",
        "parameters": {"model": connector.model, "endpoint": connector.endpoint},
        "credential": {"api_key": key or _NO_KEY},
        "actions": [
            {
                "action_type": "predict",
                "method": "POST",
                "headers": {**headers, "content-type": "application/json"},
                "url": f"{connector.scheme}://${{parameters.endpoint}}/v1/embeddings",
                "request_body": '{ "model": "${parameters.model}", "input": ${parameters.input} }',
                "pre_process_function": "connector.pre_process.openai.embedding",
                "post_process_function": "connector.post_process.openai.embedding",
            }
        ],
    }


def _comparable(body: dict[str, Any]) -> dict[str, Any]:
    """A connector as it was sent or as it is kept (in upper case here and there), for comparison."""
    actions = [
        {name: str(value).lower() if isinstance(value, str) else value for name, value in action.items()}
        for action in body.get("actions", [])
    ]
    return {"version": str(body.get("version")), "parameters": body.get("parameters"), "actions": actions}


def _dimension(answer: Any) -> int:
    """The dimension of a prediction.

    Raises:
        PlanError: it holds no vector.
    """
    try:
        return int(answer["inference_results"][0]["output"][0]["shape"][0])
    except (KeyError, IndexError, TypeError, ValueError):
        raise PlanError("the model answers no vector: check the connector's endpoint and model") from None
