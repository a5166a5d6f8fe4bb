import json
import re
import signal
import socket
import urllib.error
import urllib.request

import pytest

JSON = {"Content-Type": "application/json"}


def post(url: str, method: str, *params: object, **headers: str) -> object:
    body = json.dumps({"jsonrpc": "2.0", "method": method, "params": params, "id": 1}).encode()
    request = urllib.request.Request(url, body, JSON | headers)
    with urllib.request.urlopen(request, timeout=20) as response:
        return json.load(response)["result"]


def url_in(line: str, listener: str) -> str:
    found = re.fullmatch(rf"JSON-RPC over {listener} at (\S+?)(, WebSocket at ws://\S+/ws)?", line)
    assert found, line
    return found[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_bridge_to_a_node(start, number) -> None:
    with start("serve", "--bind", "tcp://127.0.0.1:*", "--json") as node:
        (endpoint,) = json.loads(node.line())["endpoints"]
        listeners = ("--http", ":0", "--tcp", "127.0.0.1:0", "--zeromq", "tcp://127.0.0.1:*")
        with start("bridge", "--connect", endpoint, *listeners) as bridge:
            url = url_in(bridge.line(), "HTTP")
            host, port = url_in(bridge.line(), "TCP").removeprefix("tcp://").split(":")
            assert url_in(bridge.line(), "ZeroMQ").startswith("tcp://127.0.0.1:")
            token = post(url, "connect_oneway", 60)
            assert post(url, "send_message", token, "job:done", [1], {}) == "ok"
            with socket.create_connection((host, int(port)), timeout=20) as connection:
                connection.sendall(b'{"jsonrpc": "2.0", "method": "get_nowait", "id": 1}\n')
                assert b"-32602" in connection.recv(10_000)
            assert bridge.end(number) == 0
            assert bridge.rest() == ["The bridge has ended."]
            assert bridge.rest("stderr") == []


def test_serve_with_a_listener(start) -> None:
    with start("serve", "--bind", "tcp://127.0.0.1:*", "--http", ":0", "--token", "sesame") as node:
        url = url_in(node.line(), "HTTP")
        assert post(url, "connect_oneway", Authorization="Bearer sesame")
        with pytest.raises(urllib.error.HTTPError, match="401") as refused:
            post(url, "connect_oneway")
        # It is the response as well.
        refused.value.close()
        assert node.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("command", ["serve", "bridge"])
def test_metrics(start, command) -> None:
    listener = ("--http", ":0", "--token", "sesame", "--metrics")
    with (
        start("serve", "--bind", "tcp://127.0.0.1:*", "--json") as node,
        start(
            *("serve", "--bind", "tcp://127.0.0.1:*")
            if command == "serve"
            else ("bridge", "--connect", json.loads(node.line())["endpoints"][0]),
            *listener,
        ) as shown,
    ):
        url = url_in(shown.line(), "HTTP")
        assert shown.line() == f"Metrics for Prometheus are at {url}/metrics"
        assert post(url, "connect_oneway", Authorization="Bearer sesame")
        request = urllib.request.Request(
            f"{url}/metrics", headers={"Authorization": "Bearer sesame"}
        )
        with urllib.request.urlopen(request, timeout=20) as response:
            assert 'method="connect_oneway",outcome="ok"} 1.0' in response.read().decode()
        with pytest.raises(urllib.error.HTTPError, match="401") as refused:
            urllib.request.urlopen(f"{url}/metrics", timeout=20)
        refused.value.close()
        with urllib.request.urlopen(f"{url}/readyz", timeout=20) as response:
            assert response.read() == b"ok\n"


def test_metrics_need_http(start) -> None:
    with start("serve", "--bind", "tcp://127.0.0.1:*", "--metrics") as refused:
        assert refused.end() == 2
        assert "--metrics is for HTTP listeners" in "\n".join(refused.rest("stderr"))


def test_no_server(start) -> None:
    with start(
        "bridge", "--connect", "tcp://127.0.0.1:1", "--http", ":0", "--wait", "0.1"
    ) as bridge:
        assert bridge.end() == 3
        assert "no peer answers" in bridge.rest("stderr")[0]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--connect", "tcp://127.0.0.1:1"], "nothing to open"),
        (["--http", ":0"], "--connect"),
        (["--connect", "tcp://127.0.0.1:1", "--http", "here"], "not an address"),
        (["--connect", "tcp://127.0.0.1:1", "--tcp", ":99999"], "not an address"),
        (["--connect", "tcp://127.0.0.1:1", "--zeromq", "here"], "not an endpoint"),
    ],
)
def test_refused_arguments(start, arguments, error) -> None:
    with start("bridge", *arguments) as bridge:
        assert bridge.end() == 2
        assert error in "\n".join(bridge.rest("stderr"))


@pytest.mark.parametrize("command", ["serve", "bridge"])
@pytest.mark.parametrize("option", ["--origin", "--host"])
def test_what_is_for_http_needs_http(start, command, option) -> None:
    where = ["--bind", "tcp://127.0.0.1:*"]
    if command == "bridge":
        where = ["--connect", "tcp://127.0.0.1:1", "--tcp", ":0"]
    with start(command, *where, option, "sesame") as refused:
        assert refused.end() == 2
        errors = "\n".join(refused.rest("stderr"))
        assert re.search(rf"{option} .*: give --http as well", errors)
        assert "sesame" not in errors
        assert refused.rest() == []


def test_a_token_in_the_environment_may_be_for_others(start) -> None:
    with start("serve", "--bind", "tcp://127.0.0.1:*", BERRYMQ_TOKEN="sesame") as node:
        assert node.line().startswith("The node is at")
        assert node.end(signal.SIGTERM) == 0
        assert node.rest("stderr") == ["BERRYMQ_TOKEN is not used: there is no --http or --tcp"]
    command = ("serve", "--bind", "tcp://127.0.0.1:*", "--http", ":0")
    with start(*command, BERRYMQ_TOKEN="sesame") as node:
        url = url_in(node.line(), "HTTP")
        assert post(url, "connect_oneway", Authorization="Bearer sesame")
        with pytest.raises(urllib.error.HTTPError, match="401") as refused:
            post(url, "connect_oneway")
        refused.value.close()
        assert node.end(signal.SIGTERM) == 0


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ((), "Give --token and --certificate"),
        (("--token", "sesame"), "Give --certificate"),
    ],
)
def test_exposure_needs_insecure(start, options, remedy) -> None:
    with start("serve", "--bind", "tcp://127.0.0.1:*", "--tcp", "0.0.0.0:0", *options) as node:
        assert node.end() == 2
        errors = " ".join(" ".join(node.rest("stderr")).split())
        assert "--insecure" in errors
        assert remedy in errors


def test_a_token_over_tcp(start) -> None:
    with start("serve", "--bind", "tcp://127.0.0.1:*", "--tcp", ":0", "--token", "sesame") as node:
        port = int(url_in(node.line(), "TCP").rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=10) as peer:
            lines = peer.makefile("rwb")
            for method, params in (("authorize", ["sesame"]), ("connect_oneway", [10])):
                asked = {"jsonrpc": "2.0", "method": method, "params": params, "id": 1}
                lines.write(json.dumps(asked).encode() + b"\n")
                lines.flush()
                assert json.loads(lines.readline())["result"]
            lines.close()
        assert node.end(signal.SIGTERM) == 0


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--http", ":0", "--certificate", "missing.pem"), "the certificate cannot be used"),
        (("--http", ":0", "--client-ca", "ca.pem"), "want --certificate"),
        (("--http", ":0", "--certificate-key", "key.pem"), "want --certificate"),
        (("--token", "x"), "--token is for --http and --tcp"),
    ],
)
def test_certificates_that_cannot_be_used(start, options, problem) -> None:
    with start("serve", "--bind", "tcp://127.0.0.1:*", *options) as node:
        assert node.end() == 2
        assert problem in " ".join(" ".join(node.rest("stderr")).split())


@pytest.mark.parametrize("options", [(), ("--http-write",)])
def test_the_page_of_a_node(start, options) -> None:
    with start("serve", "--bind", "tcp://127.0.0.1:*", "--http", ":0", *options) as node:
        url = url_in(node.line(), "HTTP")
        assert node.line() == f"What runs is shown in a browser at {url}"
        with urllib.request.urlopen(url, timeout=20) as response:
            assert b"/page/app.js" in response.read()
        with urllib.request.urlopen(f"{url}/state", timeout=20) as response:
            assert json.load(response)["urls"] == [url]
        # As a page of this address would ask.
        if options:
            assert post(url, "connect_oneway", 60, Origin=url)
        else:
            with pytest.raises(urllib.error.HTTPError, match="403") as caught:
                post(url, "connect_oneway", 60, Origin=url)
            caught.value.close()
        assert node.end(signal.SIGINT) == 0


def test_a_page_wants_http(berrymq) -> None:
    result = berrymq("serve", "--http-write", "--tcp", ":0")
    assert result.returncode == 2
    assert "--http-write is for HTTP listeners: give --http as well" in result.stderr
