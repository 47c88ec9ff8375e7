"""The server accepts its own Host and Origin headers and refuses others."""

from __future__ import annotations

import asyncio
import json

import pytest
from serving import build_request

from hyperformer.cli import main
from hyperformer.core.errors import HyperFormerError
from hyperformer.serving.server import ServerSettings
from hyperformer.serving.server.hosts import HostCheck


def status_of(headers, path="/v2", host="127.0.0.1", names=()):
    """Return the status and the error of a request; 200 if the check passes it to the application."""
    sent = []

    async def application(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    async def send(message):
        sent.append(message)

    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    scope = {"type": "http", "path": path, "headers": raw}
    asyncio.run(HostCheck(application, host, names)(scope, None, send))
    return sent[0]["status"], json.loads(sent[1]["body"]).get("error", "")


@pytest.mark.parametrize(
    "host", ["localhost", "LocalHost:8000", "127.0.0.1:8000", "127.8.9.1", "[::1]", "[::1]:1", "[0:0::1]:1"]
)
def test_a_loopback_address_accepts_loopback_names(host):
    assert status_of([("host", host)])[0] == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "128.0.0.1", "[::2]",
     "localhost@evil.example", "evil.example/localhost", "localhost:", "localhost:8000:1", "", "127.1", "\xe9", "[a"],
)  # fmt: skip
def test_a_loopback_address_refuses_every_other_name(host):
    status, error = status_of([("host", host)])
    assert status == 403
    assert error.startswith(f"the Host header is {host!r}; expected a name of this server.")


def test_a_request_without_a_host_is_refused():
    assert status_of([])[0] == 403
    assert status_of([], names=["*"])[0] == 200


def test_listed_names_are_accepted_with_any_port_and_loopback_names_on_loopback_only():
    names = ["infer.example", "FD00:0::1"]
    for host in ("infer.example", "INFER.example:443", "[fd00::1]:8000"):
        assert status_of([("host", host)], host="0.0.0.0", names=names)[0] == 200
        assert status_of([("host", host)], names=names)[0] == 200
    assert status_of([("host", "localhost")], names=names)[0] == 200
    for host in ("localhost", "10.0.0.1", "x.infer.example"):
        assert status_of([("host", host)], host="0.0.0.0", names=names)[0] == 403
        assert status_of([("host", host)], host="0.0.0.0", names=["*"])[0] == 200


@pytest.mark.parametrize("path", ["/v2/health/live", "/v2/health/ready", "/metrics"])
def test_probes_may_use_any_host_but_send_no_foreign_origin(path):
    assert status_of([("host", "10.1.2.3:8000")], path)[0] == 200
    assert status_of([("host", "10.1.2.3:8000"), ("origin", "http://evil.example")], path)[0] == 403


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:8000", 200), ("https://LOCALHOST:8000", 200), ("http://localhost", 403),
        ("http://localhost:8001", 403), ("http://127.0.0.1:8000", 403), ("http://evil.example", 403), ("null", 403),
        ("", 403), ("ftp://localhost:8000", 403), ("http://[", 403), ("http://u@localhost:8000", 403),
    ],
)  # fmt: skip
def test_an_origin_is_the_servers_or_refused(origin, status):
    assert status_of([("host", "localhost:8000"), ("origin", origin)])[0] == status


def test_each_of_several_origins_is_checked():
    origins = [("origin", "http://localhost"), ("origin", "http://evil.example")]
    assert status_of([("host", "localhost"), *origins])[0] == 403


def test_over_http_a_foreign_page_gets_no_answer_and_the_servers_page_does(server, rows):
    path, body = "/v2/models/mood/infer", build_request(rows["mood"][:1])
    assert server.send("POST", path, body, {"Origin": f"http://{server.address}"})[0] == 200
    for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}):
        status, answer, more = server.send("POST", path, body, headers)
        assert (status, set(answer), more["connection"]) == (403, {"error"}, "close")
    assert server.send("GET", "/v2/health/ready", headers={"Host": "10.1.2.3:8000"})[0] == 200


def test_no_path_is_redirected(server):
    for path in ("/v2/", "/v2/models/mood/", "/metrics/"):
        status, _, headers = server.send("GET", path)
        assert (status, "location" in headers) == (404, False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.0.1", "infer.example"])
def test_an_address_other_than_loopback_requires_allowed_hosts(host, tmp_path):
    with pytest.raises(HyperFormerError, match=r"expected allowed_hosts to be set\. Set --allowed-hosts NAME"):
        ServerSettings(tmp_path, host=host)
    assert ServerSettings(tmp_path, host=host, allowed_hosts=("infer.example",))


@pytest.mark.parametrize("name", ["http://a", "a:80", "a/b", "[::1]", "", "*.a", "a b"])
def test_an_allowed_host_is_a_name_without_scheme_and_port(name, tmp_path):
    with pytest.raises(HyperFormerError, match="expected a name or an address without scheme and port"):
        ServerSettings(tmp_path, allowed_hosts=("good.example", name))


def test_the_command_line_requires_and_splits_allowed_hosts(tmp_path, capsys):
    assert main(["serve", str(tmp_path), "--host", "0.0.0.0"]) == 1
    assert "Set --allowed-hosts NAME[,NAME…]" in capsys.readouterr().err
    assert main(["serve", str(tmp_path), "--allowed-hosts", "a.example, ::1,b:80"]) == 1
    assert "allowed_hosts contains 'b:80'; expected a name" in capsys.readouterr().err
