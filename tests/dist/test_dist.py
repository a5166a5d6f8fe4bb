"""``make dist``: what is in the wheel and in the sdist, and that both work where nothing else is."""

import re
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CALL = """
import asyncio
from berrymq_rpc import rpc

class Handler(rpc.AttrHandler):
    @rpc.method
    def add(self, a, b):
        return a + b

async def main():
    async with await rpc.start_server(Handler(), bind="tcp://127.0.0.1:*") as server:
        async with await rpc.open_client(connect=server.endpoints) as client:
            print(await client.rpc.add(1, 2))

asyncio.run(main())
"""

#: A user's test, by the plugin and the kit.
USERS_TEST = """
from berrymq_rpc import rpc

class Oven(rpc.AttrHandler):
    @rpc.method
    def heat(self, degrees):
        return f"heated to {degrees}"

def test_oven(berrymq):
    server = berrymq.sync_serve(Oven())
    server.method("heat").fails(ValueError("too hot"), times=1)
    client = berrymq.sync_client(server)
    try:
        client.rpc.heat(220)
    except ValueError as error:
        assert str(error) == "too hot"
    assert client.rpc.heat(220) == "heated to 220"
"""


def files_of(tree: Path) -> set[str]:
    """The files of the copied tree, without what ``make dist`` has put there."""
    made = {tree / "dist", tree / ".venv"}
    return {
        path.relative_to(tree).as_posix()
        for path in tree.rglob("*")
        if path.is_file() and not made & {path, *path.parents}
    }


def test_checked(dist: Any) -> None:
    assert dist.output.count("PASSED") == 2, dist.output


def test_sdist_is_complete(dist: Any) -> None:
    with tarfile.open(dist.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names == files_of(dist.tree) | {"PKG-INFO"}


def test_wheel_has_the_package_and_the_plugin(dist: Any) -> None:
    package = {
        name
        for name in files_of(dist.tree)
        if name.startswith("berrymq_rpc/") or name == "berrymq_rpc_pytest.py"
    }
    assert "berrymq_rpc/py.typed" in package
    with zipfile.ZipFile(dist.wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        info = metadata.rpartition("/")[0]
        message = message_from_bytes(archive.read(metadata))
        text = archive.read(f"{info}/licenses/LICENSE")
    assert names - package == {
        f"{info}/{name}"
        for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")
    }
    assert package <= names
    assert text == (dist.tree / "LICENSE").read_bytes()
    assert message["License-Expression"] == "MIT"
    assert message["Description-Content-Type"].startswith("text/x-rst")
    description = message.get_payload()
    assert isinstance(description, str)
    # An index has no files that a link could lead to.
    targets = re.findall(r"<([^<>`]+)>`_|^\.\. image:: (.*)", description, re.MULTILINE)
    assert [target for target in targets if "://" not in "".join(target)] == []
    readme = (dist.tree / "README.rst").read_text(encoding="utf-8")
    files = set(re.findall(r"<([\w/]+\.rst)>`_", readme))
    assert files
    assert {file for file in files if f"``{file}``" not in description} == set()
    assert "Between processes and hosts, programs" in " ".join(description.split())


def test_sdist_installed(dist: Any, environment: Any) -> None:
    environment.install(dist.sdist)
    assert environment.program(CALL) == "3\n"


#: Show the advice that a user gets without the extra http, then take it, then need none.
ADVICE = """
import asyncio
from berrymq_rpc.jsonrpc.bridge import Bridge

async def main():
    async with Bridge({}) as bridge:
        await bridge.serve_http("127.0.0.1", 0)

try:
    asyncio.run(main())
except ModuleNotFoundError as error:
    print(str(error).partition('"http": ')[2])
else:
    print("works")
"""


@pytest.mark.parametrize("installed", ["index", "folder", "clone"])
def test_advice_to_install_an_extra(installed: str, dist: Any, environment: Any) -> None:
    links = ("--find-links", dist.wheel.parent)
    what = {
        "index": (*links, "berrymq-rpc"),
        "folder": (dist.tree,),
        "clone": ("-e", dist.tree),
    }
    environment.install(*what[installed])
    (advice,) = environment.program(ADVICE).splitlines()
    assert advice.startswith("pip install ")
    # What stands for the index, for the other ways a folder without use.
    environment.shell(f"{advice} --quiet --find-links {dist.wheel.parent}")
    assert environment.program(ADVICE) == "works\n"
    editable = 'editable": true' in environment.program(
        "from importlib.metadata import distribution as of\n"
        "print(of('berrymq-rpc').read_text('direct_url.json'))"
    )
    assert editable is (installed == "clone")


def test_testing_kit_and_plugin_of_the_wheel(dist: Any, environment: Any) -> None:
    environment.install(dist.wheel, "pytest")
    folder = environment.folder / "project"
    folder.mkdir()
    (folder / "test_oven.py").write_text(USERS_TEST, encoding="utf-8")
    output = environment.python("-W", "error", "-m", "pytest", "-q", folder)
    assert "1 passed" in output
    assert "--berrymq" in environment.python("-m", "pytest", "--help")


@pytest.mark.timeout(600)
def test_make_test_runs_in_the_sdist(dist: Any, tmp_path: Path) -> None:
    with tarfile.open(dist.sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    tree = tmp_path / dist.sdist.name.removesuffix(".tar.gz")
    # All modules of tests are imported; those run that read the tree's files.
    chosen = "test_layers or test_contributing or test_reference or test_exports or test_extra"
    output = dist.make("test", f"ARGS=-k '{chosen}'", tree=tree)
    assert " passed" in output
