"""Servers of one's own behind TLS: what keeps a client from them is told with the setting that is to be changed."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from shiftable.app import App, load
from shiftable.errors import ConfigError, Unavailable

from ..certificates import certificate, serving_tls

pytest.importorskip("hvac", reason="Vault needs shiftable-baremetal[vault]")
pytest.importorskip("boto3", reason="an S3-compatible server needs shiftable-baremetal[s3]")

FILE = """
[project]
name = "shop"
[environments.production]
provider = "office"
[providers.office]
type = "baremetal"
endpoint = "https://{host}:{port}"
access_key = {{ env = "KEY" }}
secret_key = {{ env = "KEY" }}
{bundle}
[providers.office.vault]
address = "https://{host}:{port}"
token = {{ env = "KEY" }}
{bundle}
[providers.office.powerdns]
address = "https://{host}:{port}"
api_key = {{ env = "KEY" }}
{bundle}
[secrets.app]
[blob.assets]
bucket = "assets"
[dns.shop]
zone = "shop.example"
"""


class Answers(BaseHTTPRequestHandler):
    """Says of everything that it is not there, as these servers do."""

    def do_GET(self) -> None:
        content = json.dumps({"errors": [], "error": "Not Found"}).encode()
        if self.path.startswith("/assets"):
            content = b"<Error><Code>NoSuchBucket</Code><Message>none</Message></Error>"
        self.send_response(404)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None: ...


Written = Callable[..., App]


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Written]:
    """Write a file about a server whose certificate is for ``localhost``; it is trusted by ``ca.pem``."""
    monkeypatch.setenv("KEY", "c4n4ry")
    ca, key = certificate(tmp_path, "localhost", None)
    ca.rename(tmp_path / "ca.pem")
    certificate(tmp_path, "other", None)
    (tmp_path / "empty.pem").touch()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.socket = serving_tls(tmp_path / "ca.pem", key).wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()

    def write(bundle: str | None = None, host: str = "localhost") -> App:
        line = "" if bundle is None else f'ca_bundle = "{bundle}"'
        (tmp_path / "shiftable.toml").write_text(FILE.format(host=host, port=server.server_port, bundle=line))
        return load(tmp_path / "shiftable.toml")

    yield write
    server.shutdown()
    thread.join()
    server.server_close()


USES: dict[str, Callable[[App], Any]] = {
    "": lambda app: app.cloud("office").blob.exists("assets"),
    "vault.": lambda app: app.secrets("app").exists("key"),
    "powerdns.": lambda app: app.cloud("office").dns.exists("shop.example"),
}
uses = pytest.mark.parametrize(("table", "use"), USES.items(), ids=["S3", "Vault", "PowerDNS"])


@uses
def test_who_proves_who_it_is_is_asked(written: Written, table: str, use: Callable[[App], Any]) -> None:
    with written("ca.pem") as app:
        assert use(app) is False


@uses
@pytest.mark.parametrize("bundle", [None, "other.pem"])
def test_who_is_not_trusted_is_told_with_the_setting(
    written: Written, bundle: str | None, table: str, use: Callable[[App], Any]
) -> None:
    told = rf"CERTIFICATE_VERIFY_FAILED.*; `{table}ca_bundle` names the authorities that are trusted"
    with written(bundle) as app, pytest.raises(Unavailable, match=told) as caught:
        use(app)
    assert "c4n4ry" not in f"{caught.value!r} {caught.value.__cause__!r}"


@uses
def test_another_name_than_the_certificates_is_told(written: Written, table: str, use: Callable[[App], Any]) -> None:
    where = f"the name in `{table}address`" if table else "the endpoint"
    with written("ca.pem", "127.0.0.1") as app, pytest.raises(Unavailable, match=f"match.*; {where} must be a name"):
        use(app)


@uses
@pytest.mark.parametrize("bundle", ["missing.pem", "empty.pem", "localhost.key"])
def test_a_file_without_certificates_is_told_before_anybody_is_asked(
    written: Written, bundle: str, table: str, use: Callable[[App], Any]
) -> None:
    told = rf"^{table}ca_bundle: .*{bundle} is no file of certificates"
    with written(bundle) as app, pytest.raises(ConfigError, match=told):
        use(app)


def test_the_environment_of_vault_counts_where_the_file_says_nothing(
    written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use = USES["vault."]
    monkeypatch.setenv("VAULT_CACERT", str(tmp_path / "ca.pem"))
    with written() as app:
        assert use(app) is False
    monkeypatch.setenv("VAULT_CACERT", str(tmp_path / "empty.pem"))
    with written() as app, pytest.raises(ConfigError, match=r"^VAULT_CACERT: .*empty.pem is no file of certificates"):
        use(app)
    with written("ca.pem") as app:
        assert use(app) is False
    monkeypatch.delenv("VAULT_CACERT")
    monkeypatch.setenv("VAULT_CAPATH", str(tmp_path / "nowhere"))
    with written() as app, pytest.raises(ConfigError, match=r"^VAULT_CAPATH: .*nowhere is no folder"):
        use(app)
    (tmp_path / "nowhere").mkdir()
    with written() as app, pytest.raises(Unavailable, match="VERIFY_FAILED"):
        use(app)


PLACES = {
    "closed": ("http://127.0.0.1:{closed}", "cannot be reached.*: .*Connection refused"),
    "nowhere": ("http://nowhere.invalid:8200", "cannot be reached.*: .*(not known|No address|resolution)"),
    "plain": ("https://127.0.0.1:{plain}", "no TLS with the server: .*WRONG_VERSION_NUMBER"),
    "page": ("http://127.0.0.1:{plain}", "the answer is no JSON: is this the address of"),
}


class Page(BaseHTTPRequestHandler):
    """Says what a proxy says to whom it does not know."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "13")
        self.end_headers()
        self.wfile.write(b"<p>Log in</p>")

    def log_message(self, *_: object) -> None: ...


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("table", "use"), list(USES.items())[1:], ids=["Vault", "PowerDNS"])
def test_why_nobody_answers_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, table: str, use: Callable[[App], Any]
) -> None:
    monkeypatch.setenv("KEY", "c4n4ry")
    address, told = PLACES[place]
    with socket.create_server(("127.0.0.1", 0)) as gone:
        closed = gone.getsockname()[1]
    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    text = FILE.format(host="localhost", port=1, bundle="")
    known = address.format(closed=closed, plain=server.server_port)
    (tmp_path / "shiftable.toml").write_text(text.replace("https://localhost:1", known))
    with load(tmp_path / "shiftable.toml") as app, pytest.raises(Unavailable, match=told) as caught:
        use(app)
    assert "c4n4ry" not in f"{caught.value!r} {caught.value.__cause__!r} {table}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_sdks_own_variable_counts_for_s3(written: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    with written() as app:
        assert USES[""](app) is False
