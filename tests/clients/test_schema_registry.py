"""The registry's client over real registries: what is kept, what is refused, and what each failure means."""

import json
import socket
import ssl
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pydantic import SecretStr

from vector_assets.clients.schema_registry import RegistrySettings, SchemaRegistry, UnknownSchemaError, split_url
from vector_assets.engine.errors import ConfigError, TransientError, UnavailableError

TEXT = {"type": "record", "name": "t", "fields": [{"name": "id", "type": "long"}]}


def client(*urls, **more):
    return SchemaRegistry(RegistrySettings(urls, **more))


@pytest.fixture
def canned():
    """Makes servers that give the same answer to everybody, and note what they were asked; perhaps with TLS."""
    servers = []

    def make(status, body, headers=(), context=None):
        asked = []

        class Requests(BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append((self.path, self.headers.get("Authorization")))
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Requests)
        if context is not None:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"{'https' if context else 'http'}://127.0.0.1:{server.server_port}", asked

    yield make
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def dead():
    """An address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return f"http://127.0.0.1:{port}"


def test_a_schema_is_asked_for_once_by_all_threads(canned):
    url, asked = canned(200, {"schema": '"string"'})
    registry = client(url)
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(registry.schema, [7] * 32))
    assert {each.text for each in found} == {'"string"'}
    assert asked == [("/schemas/ids/7", None)]


def test_a_registered_schema_comes_with_all_it_refers_to(registry):
    inner, outer = registry.fresh_subject(), registry.fresh_subject()
    color = {"type": "enum", "name": "a.Color", "symbols": ["RED"]}
    registry.register(color, inner)
    first = [{"name": "a.Color", "subject": inner, "version": 1}]
    paint = {"type": "record", "name": "a.Paint", "fields": [{"name": "color", "type": "a.Color"}]}
    registry.register(paint, outer, references=first)
    second = [{"name": "a.Paint", "subject": outer, "version": 1}, *first]
    wall = {"type": "record", "name": "a.Wall", "fields": [{"name": "p", "type": "a.Paint"}]}
    found = client(registry.url).schema(registry.register(wall, references=second))
    assert found.kind == "AVRO"
    assert [json.loads(each) for each in found.references] == [color, paint]


def test_an_unknown_id_is_a_bad_record_and_asked_again(registry):
    asking = client(registry.url)
    for _ in range(2):
        with pytest.raises(UnknownSchemaError, match="schema id 123456 is not in the schema registry http://127"):
            asking.schema(123456)


def test_credentials_open_the_registry_and_wrong_ones_are_an_error_of_the_declaration(own_registry):
    registry = own_registry({"ann": "secret-word"})
    number = registry.register(TEXT, user="ann:secret-word")
    assert json.loads(client(registry.url, user_info=SecretStr("ann:secret-word")).schema(number).text) == TEXT
    for user in (None, SecretStr("ann:other-word")):
        with pytest.raises(ConfigError, match=r"refuses our credentials \(HTTP 401\)") as caught:
            client(registry.url, user_info=user).schema(number)
        assert "word" not in str(caught.value)


def test_a_token_is_sent_as_it_is(canned):
    url, asked = canned(200, {"schema": '"string"'})
    client(url, token=SecretStr("abc")).schema(1)
    assert asked == [("/schemas/ids/1", "Bearer abc")]


def test_a_registry_that_does_not_answer_is_waited_for_and_another_address_tried(dead, registry):
    number = registry.register(TEXT)
    with pytest.raises(UnavailableError, match="does not answer"):
        client(dead).schema(number)
    assert json.loads(client(dead, registry.url).schema(number).text) == TEXT


def test_a_registry_that_says_nothing_is_given_up_in_time():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(UnavailableError, match="Timeout"):
            client(url, read_seconds=0.2).schema(1)


def test_after_an_outage_the_same_client_goes_on(own_registry):
    registry = own_registry()
    one, two = registry.register(TEXT), registry.register('"string"')
    asking = client(registry.url)
    asking.schema(one)
    registry.service.stop()
    assert json.loads(asking.schema(one).text) == TEXT
    with pytest.raises(UnavailableError):
        asking.schema(two)
    registry.service.start()
    assert asking.schema(two).text == '"string"'


@pytest.mark.parametrize(
    ("status", "body", "error", "message"),
    [
        (403, {"error_code": 40301}, ConfigError, "refuses our credentials"),
        (404, b"<html>", ConfigError, "is this the address of a schema registry"),
        (200, b"<html>", ConfigError, "is this the address of a schema registry"),
        (302, b"", ConfigError, "HTTP 302"),
        (500, {"error_code": 50001}, TransientError, "error 50001"),
        (429, {}, TransientError, "HTTP 429"),
        (503, b"", UnavailableError, "HTTP 503"),
    ],
)
def test_each_answer_has_its_own_meaning(canned, status, body, error, message):
    url, _ = canned(status, body, [("Retry-After", "7")])
    with pytest.raises(error, match=message) as caught:
        client(url).schema(1)
    if status == 429:
        assert caught.value.retry_after == 7


@pytest.fixture(scope="module")
def pem(tmp_path_factory):
    """A certificate of 127.0.0.1 with its key, in one file each and in one together."""
    folder = tmp_path_factory.mktemp("pem")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=test"
    subprocess.run(
        [*command.split(), "-addext", "subjectAltName=IP:127.0.0.1"], cwd=folder, check=True, capture_output=True
    )
    (folder / "both.pem").write_text((folder / "cert.pem").read_text() + (folder / "key.pem").read_text())
    return folder


def test_https_is_trusted_by_the_given_file_only_and_shows_our_certificate(canned, pem):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem / "both.pem")
    context.load_verify_locations(pem / "cert.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    url, asked = canned(200, {"schema": '"string"'}, context=context)
    trusting = client(url, ca_file=pem / "cert.pem", certificate_file=pem / "both.pem")
    assert trusting.schema(1).text == '"string"'
    with pytest.raises(ConfigError, match="no TLS connection"):
        client(url).schema(1)
    assert len(asked) == 1


@pytest.mark.parametrize("option", ["ca_file", "certificate_file"])
@pytest.mark.parametrize("content", [None, b"\xfe\xed\xfe\xed\0\0\0\2"], ids=["missing", "jks"])
def test_stores_that_are_no_pem_are_refused_with_the_command_that_converts_them(tmp_path, option, content):
    store = tmp_path / "store.jks"
    if content:
        store.write_bytes(content)
    with pytest.raises(ConfigError, match=r"store\.jks.*openssl pkcs12"):
        client("https://127.0.0.1:1", **{option: store}).schema(1)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("http://host:8081/", ("http://host:8081", None)),
        ("https://ann:pw@host/path/", ("https://host/path", "ann:pw")),
    ],
)
def test_an_address_is_split_from_its_credentials(text, found):
    assert split_url(text) == found


@pytest.mark.parametrize("text", ["host:8081", "ftp://host", "http://", "http://host?x=1", ""])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ValueError, match="want http"):
        split_url(text)
