"""The HTTP listener and clients as they are: curl, Node.js and Java.

They run in processes of their own; what is not installed is skipped.
"""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from berrymq_rpc.jsonrpc.bridge import Bridge

REQUEST = '{"jsonrpc": "2.0", "method": "sum", "params": [1, 2], "id": 1}'
ANSWER = {"jsonrpc": "2.0", "result": 3, "id": 1}
EXPECT = ("-H", "Expect: 100-continue", "--expect100-timeout", "20")


async def output_of(*command: str) -> str:
    """What a program prints."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(25):
            output, errors = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.communicate()
        raise
    assert process.returncode == 0, errors.decode()
    return output.decode()


async def curl(url: str, *options: str) -> str:
    return await output_of("curl", "--silent", "--show-error", *options, url)


async def test_curl_waits_with_its_body(handler: Any) -> None:
    async with Bridge(handler) as bridge:
        url = await bridge.serve_http()
        json_type = ("-H", "Content-Type: application/json")
        assert json.loads(await curl(url, *EXPECT, *json_type, "--data", REQUEST)) == ANSWER
        chunked = (*json_type, "-H", "Transfer-Encoding: chunked")
        padded = REQUEST + " " * 90_000
        assert json.loads(await curl(url, *EXPECT, *chunked, "--data-binary", padded)) == ANSWER
        # A refusal comes at once, and the body stays where it is.
        refused = ("--output", "/dev/null", "--write-out", "%{http_code} %{size_upload}")
        output = await curl(url, *EXPECT, *refused, "-H", "Content-Type: text/plain", "-d", REQUEST)
        assert output == "415 0"


async def test_curl_shows_its_token(handler: Any) -> None:
    async with Bridge(handler) as bridge:
        url = await bridge.serve_http(token="sesame", require_content_type=False)
        status = ("--output", "/dev/null", "--write-out", "%{http_code}", "--data", REQUEST)
        assert await curl(url, *status) == "401"
        assert await curl(url, *status, "--user", "me:wrong") == "401"
        for shown in (
            ("--user", "me:sesame"),
            # It asks first which way the server wants.
            ("--anyauth", "--user", "me:sesame"),
            ("--oauth2-bearer", "sesame"),
        ):
            assert json.loads(await curl(url, "--data", REQUEST, *shown)) == ANSWER
        with_user = url.replace("http://", "http://me:sesame@")
        assert json.loads(await curl(with_user, "--data", REQUEST)) == ANSWER


NODE = """
const http = require("node:http")
const [url, body] = process.argv.slice(1)
const headers = {"Content-Type": "application/json", "Content-Length": body.length,
                 "Expect": "100-continue"}
const request = http.request(url, {method: "POST", headers}, (response) => {
    response.on("data", (data) => console.log(data.toString()))
})
request.on("continue", () => request.end(body))
request.flushHeaders()
"""


async def test_node_waits_with_its_body(handler: Any) -> None:
    async with Bridge(handler) as bridge:
        url = await bridge.serve_http()
        assert json.loads(await output_of("node", "-e", NODE, url, REQUEST)) == ANSWER


JAVA = """
import java.net.*;
import java.net.http.*;
import java.net.http.HttpResponse.BodyHandlers;
import java.time.Duration;

public class Call {
    public static void main(String[] args) throws Exception {
        HttpClient client = HttpClient.newBuilder()
            .version(HttpClient.Version.HTTP_1_1)
            .authenticator(new Authenticator() {
                protected PasswordAuthentication getPasswordAuthentication() {
                    return new PasswordAuthentication("me", "sesame".toCharArray());
                }
            })
            .build();
        HttpRequest request = HttpRequest.newBuilder(URI.create(args[0]))
            .header("Content-Type", "application/json")
            .timeout(Duration.ofSeconds(20))
            .expectContinue(Boolean.parseBoolean(args[2]))
            .POST(HttpRequest.BodyPublishers.ofString(args[1]))
            .build();
        for (int i = 0; i < 2; i++) {
            System.out.println(client.send(request, BodyHandlers.ofString()).body());
        }
    }
}
"""


@pytest.mark.timeout(60)
@pytest.mark.parametrize("token", [None, "sesame"])
async def test_java(handler: Any, tmp_path: Path, token: str | None) -> None:
    source = tmp_path / "Call.java"
    source.write_text(JAVA)
    async with Bridge(handler) as bridge:
        url = await bridge.serve_http(token=token)
        # Java 17 itself waits for ever where it expects 100 and is asked for its password.
        expects = "true" if token is None else "false"
        command = ("java", "-XX:TieredStopAtLevel=1", str(source), url, REQUEST, expects)
        output = await output_of(*command)
        assert [json.loads(line) for line in output.splitlines()] == [ANSWER] * 2
