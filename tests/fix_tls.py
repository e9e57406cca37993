"""A TLS end with a login in front of a plain HTTP service: what a cluster with a security plugin asks of a client."""

import base64
import datetime
import ipaddress
import ssl
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import urllib3
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

USER, PASSWORD = "polarsearch_user", "a secret: with % and ü"
_DAY = datetime.timedelta(days=1)


class TlsEnd:
    """`https://127.0.0.1:<port>` in front of `url`; `ca_file` is the certificate that signs for it."""

    def __init__(self, url: str, folder: Path) -> None:
        self.folder, self.ca_file, self.refused = folder, folder / "ca.pem", 0
        certificate = _certificate(folder)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(url, self))
        self._server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self._server.server_address[1]
        self.url = f"https://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


def _handler(url: str, end: TlsEnd) -> type[BaseHTTPRequestHandler]:
    pool = urllib3.PoolManager(maxsize=8, timeout=60)
    wanted = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Authorization") != wanted:
                end.refused += 1
                self._answer(401, b'{"error":"Unauthorized"}', "application/json")
                return
            headers = {"Content-Type": self.headers.get("Content-Type") or "application/json"}
            found = pool.request(self.command, url + self.path, body=body or None, headers=headers, retries=False)
            self._answer(found.status, found.data, found.headers.get("Content-Type", "application/json"))

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = pass_on  # noqa: N815 (names of the base class)

        def _answer(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing is written."""

        def handle(self) -> None:
            try:
                super().handle()
            except (ssl.SSLError, ConnectionError):
                # a client that does not trust us hangs up
                return

    return Handler


def _certificate(folder: Path) -> Path:
    """Key and certificate for 127.0.0.1, signed by a CA of the folder's own."""
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test ca")])
    ca = _signed(ca_name, ca_name, ca_key, ca_key, x509.BasicConstraints(ca=True, path_length=None))
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    own = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = _signed(name, ca_name, key, ca_key, own)
    (folder / "ca.pem").write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "server.pem").write_bytes(secret + certificate.public_bytes(serialization.Encoding.PEM))
    return folder / "server.pem"


def _signed(name, issuer, key, ca_key, extension) -> x509.Certificate:  # type: ignore[no-untyped-def]
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - _DAY)
    builder = builder.not_valid_after(now + _DAY).add_extension(extension, critical=False)
    return builder.sign(ca_key, hashes.SHA256())


@pytest.fixture
def tls_end(tmp_path: Path) -> Iterator[Callable[[str], TlsEnd]]:
    """Makes ends: `tls_end("http://127.0.0.1:1234")`; all are closed after the test."""
    made: list[TlsEnd] = []

    def make(url: str) -> TlsEnd:
        folder = tmp_path / f"tls_{len(made)}"
        folder.mkdir()
        made.append(TlsEnd(url, folder))
        return made[-1]

    yield make
    for each in made:
        each.close()
