import json
import signal
import subprocess

from .conftest import BERRYMQ, ENVIRONMENT, ROOT, SECONDS, endpoint_of, started_command


def test_tail(node, start, berrymq) -> None:
    with (
        start("tail", node.endpoint) as everything,
        start("tail", node.endpoint, "job:*", "--json") as jobs,
    ):
        assert everything.note() == f"following *@*:* at {node.endpoint}"
        text = f"following job:* at {node.endpoint}"
        assert json.loads(jobs.note()) == {"note": "following", "message": text}
        berrymq("send", node.endpoint, "job:done", "1", "a=b")
        berrymq("send", node.endpoint, "other@plant:done", "\x1b[2J")
        berrymq("send", node.endpoint, "job:left")
        assert [everything.line()[10:] for _ in range(3)] == [
            "job:done  1  a='b'",
            "other@plant:done  '\\x1b[2J'",
            "job:left",
        ]
        first, second = json.loads(jobs.line()), json.loads(jobs.line())
        assert (first["id"], first["args"], first["kwargs"]) == ("job:done", [1], {"a": "b"})
        assert second["id"] == "job:left"
        assert jobs.end(signal.SIGINT) == -signal.SIGINT
        assert jobs.rest("stderr") == [""]
        assert everything.end(signal.SIGTERM) == -signal.SIGTERM


def test_a_node_that_comes_back(start, berrymq) -> None:
    with start("serve", "--bind", "tcp://127.0.0.1:*") as node:
        endpoint = endpoint_of(node)
        with start("tail", endpoint, "--wait", "0.5") as running:
            running.note()
            node.process.kill()
            assert running.note() == f"connection to {endpoint} lost; waiting for it to come back"
            node.end()
            with started_command("serve", "--bind", endpoint) as again:
                endpoint_of(again)
                assert running.note() == (
                    f"connection to {endpoint} restored; messages sent meanwhile may be missing"
                )
                berrymq("send", endpoint, "a:b")
                assert running.line().endswith("  a:b")
                assert running.end(signal.SIGINT) == -signal.SIGINT
                assert running.rest("stderr") == [""]


def test_a_closed_output(node) -> None:
    """As of ``berrymq tail ... | head -1``."""
    with subprocess.Popen(
        [*BERRYMQ, "tail", node.endpoint],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
        cwd=ROOT,
        text=True,
    ) as running:
        try:
            assert running.stdout is not None
            assert running.stderr is not None
            assert running.stderr.readline().startswith("following ")
            running.stdout.close()
            # At once, not when the next message comes.
            assert running.wait(SECONDS) == -signal.SIGPIPE
            assert running.stderr.read() == ""
        finally:
            running.kill()


def test_no_server(berrymq) -> None:
    result = berrymq("tail", "--wait", "0.2", "tcp://127.0.0.1:1")
    assert (result.returncode, result.stdout) == (3, "")
    assert "no server is listening on port 1 of 127.0.0.1" in result.stderr


def test_not_an_identifier(berrymq) -> None:
    result = berrymq("tail", "tcp://127.0.0.1:1", "a:b:c")
    assert (result.returncode, result.stdout) == (2, "")
    assert "'a:b:c' is not an identifier" in result.stderr
