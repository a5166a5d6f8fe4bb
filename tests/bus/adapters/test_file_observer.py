"""`FileObserver`, on real files."""

import asyncio
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from berrymq_rpc import FileObserver, Message
from berrymq_rpc.bus import Bus, Queue

pytest.importorskip("watchfiles", reason="FileObserver needs watchfiles")

ROOT = Path(__file__).resolve().parents[3]
BOUND = 20.0


@pytest.fixture
def bus() -> Bus:
    return Bus()


class Seen:
    """What was sent about the files below a folder: ``"created a/b"``."""

    def __init__(self, bus: Bus, folder: Path) -> None:
        self._folder = folder
        self._queue = Queue("files:*", bus=bus)

    def next(self) -> str:
        message = self._queue.get(timeout=BOUND)
        return f"{message.action} {Path(message.args[0]).relative_to(self._folder).as_posix()}"

    def expect(self, *expected: str) -> None:
        assert [self.next() for _ in expected] == list(expected)


@pytest.fixture
def seen(bus: Bus, tmp_path: Path) -> Seen:
    return Seen(bus, tmp_path)


def test_a_folder(bus: Bus, seen: Seen, tmp_path: Path) -> None:
    (tmp_path / "old").write_text("1")
    with FileObserver(tmp_path, "files", bus) as observer:
        (tmp_path / "new").write_text("1")
        seen.expect("created new")
        (tmp_path / "old").write_text("2")
        seen.expect("modified old")
        (tmp_path / "old").unlink()
        seen.expect("removed old")
        # A folder is only watched once it has been noticed: what is in it by then is found.
        (tmp_path / "a" / "b").mkdir(parents=True)
        (tmp_path / "a" / "b" / "c").write_text("1")
        seen.expect("created a", "created a/b", "created a/b/c")
        (tmp_path / "a" / "b" / "c").write_text("2")
        seen.expect("modified a/b/c")
        assert (observer.dropped, observer.problem) == (0, None)
    assert observer.closed
    assert "berrymq_rpc FileObserver" not in [thread.name for thread in threading.enumerate()]


def test_a_folder_alone(bus: Bus, seen: Seen, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with FileObserver(tmp_path, "files", bus, recursive=False):
        (tmp_path / "a" / "b").write_text("1")
        (tmp_path / "c").write_text("1")
        seen.expect("created c")


def test_a_file(bus: Bus, seen: Seen, tmp_path: Path) -> None:
    path = tmp_path / "settings"
    with FileObserver(str(path), "files", bus):
        (tmp_path / "other").write_text("1")
        path.write_text("1")
        seen.expect("created settings")
        path.write_text("2")
        seen.expect("modified settings")
        # As editors save.
        (tmp_path / "other").replace(path)
        seen.expect("modified settings")
        path.unlink()
        seen.expect("removed settings")


def test_what_is_removed_and_comes_back(bus: Bus, seen: Seen, tmp_path: Path) -> None:
    folder = tmp_path / "far" / "folder"
    with FileObserver(folder, "files", bus):
        folder.mkdir(parents=True)
        seen.expect("created far/folder")
        (folder / "a").write_text("1")
        seen.expect("created far/folder/a")
        # The system goes on to report what happens in a folder that was moved away.
        folder.rename(tmp_path / "away")
        seen.expect("removed far/folder")
        (tmp_path / "away" / "b").write_text("1")
        (tmp_path / "away").rename(folder)
        seen.expect("created far/folder", "created far/folder/a", "created far/folder/b")
        (folder / "a").write_text("2")
        seen.expect("modified far/folder/a")


def test_a_file_in_a_folder_that_goes_away(bus: Bus, seen: Seen, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    path = tmp_path / "folder" / "file"
    path.write_text("1")
    with FileObserver(path, "files", bus):
        path.parent.rename(tmp_path / "away")
        seen.expect("removed folder/file")
        (tmp_path / "away").rename(path.parent)
        seen.expect("created folder/file")


def test_a_folder_in_the_place_of_another(bus: Bus, seen: Seen, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "next").mkdir()
    (tmp_path / "next" / "a").write_text("1")
    with FileObserver(folder, "files", bus):
        folder.rename(tmp_path / "before")
        (tmp_path / "next").rename(folder)
        seen.expect("removed folder", "created folder", "created folder/a")


def test_too_many_changes_are_dropped_and_counted(
    bus: Bus, seen: Seen, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "next").mkdir()
    for number in range(9):
        (tmp_path / "next" / str(number)).touch()
    folder = tmp_path / "folder"
    with FileObserver(folder, "files", bus, max_changes=5) as observer:
        with caplog.at_level(logging.WARNING, "berrymq_rpc"):
            (tmp_path / "next").rename(folder)
            seen.expect("created folder", *(f"created folder/{number}" for number in range(5)))
            (folder / "0").write_text("1")
            seen.expect("modified folder/0")
        assert observer.dropped >= 1
    assert "dropped so far" in caplog.text


async def test_on_the_event_loop(bus: Bus, tmp_path: Path) -> None:
    paths: asyncio.Queue[str] = asyncio.Queue()

    @bus.following_function("files:created")
    async def receive(message: Message) -> None:
        # Of another thread, it would not wake up who waits.
        paths.put_nowait(message.args[0])

    @bus.following_function("files:created")
    def fail(message: Message) -> None:
        asyncio.get_running_loop()
        raise LookupError

    async with FileObserver(tmp_path, "files", bus) as observer, asyncio.timeout(BOUND):
        for number in range(250):
            (tmp_path / str(number)).touch()
        found = {await paths.get() for _ in range(250)}
        assert found == {str(tmp_path / str(number)) for number in range(250)}
    assert observer.closed
    assert "berrymq_rpc FileObserver" not in [thread.name for thread in threading.enumerate()]


async def test_a_receiver_may_close_it(bus: Bus, tmp_path: Path) -> None:
    closed = asyncio.Event()
    count = 0

    @bus.following_function("files:created")
    def receive(message: Message) -> None:
        nonlocal count
        count += 1
        observer.close()
        closed.set()

    observer = FileObserver(tmp_path, "files", bus)
    for number in range(3):
        (tmp_path / str(number)).touch()
    async with asyncio.timeout(BOUND):
        await closed.wait()
        await observer.aclose()
    assert count == 1


def test_an_event_loop_that_ended(bus: Bus, tmp_path: Path) -> None:
    async def start() -> FileObserver:
        return FileObserver(tmp_path, "files", bus)

    observer = asyncio.run(start())
    assert observer.closed
    (tmp_path / "a").touch()
    observer.close()
    assert "berrymq_rpc FileObserver" not in [thread.name for thread in threading.enumerate()]


def program(text: str, *arguments: object) -> str:
    finished = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", text, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert (finished.stderr, finished.returncode) == ("", 0)
    return finished.stdout


def test_it_does_not_hold_the_interpreter(tmp_path: Path) -> None:
    """Nor does a daemon thread that the interpreter's end finds in watchfiles abort it."""
    text = """
import asyncio, pathlib, sys
import berrymq_rpc as berrymq
berrymq.Interval("tick", 0.01)
berrymq.FileObserver(sys.argv[1], "files")
async def main():
    berrymq.Interval("tick", 0.01)
    berrymq.FileObserver(sys.argv[1], "files")
    async for message in berrymq.messages("files:created"):
        print(message.id)
        break
pathlib.Path(sys.argv[1], "before").touch()
asyncio.run(main())
"""
    assert program(text, tmp_path) == "files:created\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_after_a_fork(tmp_path: Path) -> None:
    """The parent's goes on, whatever becomes of the child's copy."""
    text = """
import os, pathlib, sys
import berrymq_rpc as berrymq
queue = berrymq.Queue("files:created")
observer = berrymq.FileObserver(sys.argv[1], "files")
child = os.fork()
if child == 0:
    assert observer.closed
    observer.close()
    del observer
    sys.exit()
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
pathlib.Path(sys.argv[1], "new").touch()
print(queue.get(timeout=20).id, observer.closed)
"""
    assert program(text, tmp_path) == "files:created False\n"


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="this system has no such permissions")
def test_what_may_not_be_read(tmp_path: Path) -> None:
    """It is logged once, and watched as soon as it may be."""
    text = """
import asyncio, logging, os, pathlib, sys, time
import watchfiles
import berrymq_rpc as berrymq
folder = pathlib.Path(sys.argv[1], "folder")
folder.mkdir()
folder.chmod(0)
if os.geteuid() == 0:
    # Who may read everything.
    os.chown(sys.argv[1], 65534, 65534), os.chown(folder, 65534, 65534)
    os.seteuid(65534)
records = []
class Kept(logging.Handler):
    def emit(self, record):
        records.append(record)
logging.getLogger("berrymq_rpc.bus").addHandler(Kept())
queue = berrymq.Queue("files:created")
with berrymq.FileObserver(folder, "files") as observer:
    print(type(observer.problem).__name__)
    folder.chmod(0o700)
    end = time.monotonic() + 20
    while observer.problem and time.monotonic() < end:
        time.sleep(0.01)
    (folder / "new").touch()
    print(pathlib.Path(queue.get(timeout=20).args[0]).name)
print(len(records))
"""
    tmp_path.chmod(0o755)
    for parent in list(tmp_path.parents)[:3]:
        if parent.stat().st_uid == os.geteuid() and "pytest" in str(parent):
            parent.chmod(0o755)
    assert program(text, tmp_path) == "PermissionError\nnew\n1\n"


@pytest.mark.parametrize(
    ("path", "name", "limit", "error"),
    [
        (b"folder", "files", 1, TypeError),
        (3, "files", 1, TypeError),
        ("folder", "files:created", 1, ValueError),
        ("folder", "*", 1, ValueError),
        ("folder", "files", 0, ValueError),
    ],
)
def test_bad_arguments(bus: Bus, path: Any, name: str, limit: int, error: type) -> None:
    with pytest.raises(error):
        FileObserver(path, name, bus, max_changes=limit)


def test_without_watchfiles(bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs watchfiles.*\[files\]"):
        FileObserver(tmp_path, "files", bus)
