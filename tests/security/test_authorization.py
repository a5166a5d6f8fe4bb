"""Which keys are authorized, and what a change does."""

import logging
import os
import signal
from pathlib import Path

import pytest

from berrymq_rpc.security import CurveServer, KeyPair
from berrymq_rpc.security.authorization import (
    Authorization,
    KeyFolder,
    KeyFunction,
    KeySet,
    authorization_of,
)

ONE = KeyPair.generate()
OTHER = KeyPair.generate()


def publish(pair: KeyPair, folder: Path, name: str) -> None:
    pair.save(folder, name).unlink()


def removed_by(authorization: Authorization) -> list[str]:
    removed: list[str] = []
    authorization.add_listener(removed.append)
    return removed


def test_what_a_user_gives(tmp_path: Path) -> None:
    assert isinstance(authorization_of(tmp_path), KeyFolder)
    assert isinstance(authorization_of(str(tmp_path)), KeyFolder)
    assert isinstance(authorization_of({ONE.public}), KeySet)
    assert isinstance(authorization_of(()), KeySet)
    assert isinstance(authorization_of(lambda key: True), KeyFunction)
    with pytest.raises(TypeError, match="authorized is the path of a folder"):
        authorization_of(5)
    with pytest.raises(ValueError, match="authorized: a key is 40 characters"):
        authorization_of({"short"})


def test_a_set() -> None:
    authorization = KeySet({ONE.public})
    removed = removed_by(authorization)
    assert authorization.check(ONE.public) is True
    assert authorization.check(OTHER.public) is False
    authorization.revoke(ONE.public)
    assert authorization.check(ONE.public) is False
    assert authorization.is_removed(ONE.public)
    assert removed == [ONE.public]


def test_a_function() -> None:
    users = {ONE.public: "alice"}
    authorization = KeyFunction(users.get)
    assert authorization.check(ONE.public) == "alice"
    assert authorization.check(OTHER.public) is None
    assert not authorization.is_removed(ONE.public)
    authorization.revoke(ONE.public)
    assert authorization.check(ONE.public) is False


def test_a_folder_is_read_at_each_check(tmp_path: Path) -> None:
    authorization = KeyFolder(tmp_path)
    removed = removed_by(authorization)
    assert authorization.check(ONE.public) is False
    publish(ONE, tmp_path, "alice")
    assert authorization.check(ONE.public) == "alice"
    assert authorization.check(OTHER.public) is False
    (tmp_path / "alice.key").unlink()
    assert authorization.check(ONE.public) is False
    assert removed == [ONE.public]


def test_a_folder_that_has_not_changed_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[object] = []
    scandir = os.scandir

    def scan(folder: Path) -> object:
        read.append(folder)
        return scandir(folder)

    monkeypatch.setattr("berrymq_rpc.security.authorization.SETTLED", 0)
    publish(ONE, tmp_path, "alice")
    authorization = KeyFolder(tmp_path)
    removed = removed_by(authorization)
    monkeypatch.setattr(os, "scandir", scan)
    for _ in range(100):
        assert authorization.check(ONE.public) == "alice"
        assert authorization.check(OTHER.public) is False
    assert read == []
    # Another key in the same file, which the folder does not show.
    text = (tmp_path / "alice.key").read_text()
    (tmp_path / "alice.key").write_text(text.replace(ONE.public, OTHER.public))
    os.utime(tmp_path / "alice.key", ns=(0, 0))
    assert authorization.check(ONE.public) is False
    assert authorization.check(OTHER.public) == "alice"
    assert len(read) == 1
    (tmp_path / "alice.key").unlink()
    assert authorization.check(OTHER.public) is False
    assert len(read) == 2
    assert removed == [ONE.public, OTHER.public]


def test_a_folder_that_is_watched(tmp_path: Path) -> None:
    publish(ONE, tmp_path, "alice")
    authorization = KeyFolder(tmp_path)
    removed = removed_by(authorization)
    authorization.refresh()
    assert removed == []
    # Another key under the same name.
    (tmp_path / "alice.key").unlink()
    publish(OTHER, tmp_path, "alice")
    authorization.refresh()
    assert removed == [ONE.public]
    assert authorization.is_removed(ONE.public)
    assert not authorization.is_removed(OTHER.public)


def test_a_key_under_two_names(tmp_path: Path) -> None:
    publish(ONE, tmp_path, "b")
    publish(ONE, tmp_path, "a")
    authorization = KeyFolder(tmp_path)
    removed = removed_by(authorization)
    assert authorization.check(ONE.public) == "a"
    (tmp_path / "a.key").unlink()
    assert authorization.check(ONE.public) == "b"
    # Those that came in as "a" must not stay as "a".
    assert removed == [ONE.public]
    assert authorization.is_removed(ONE.public, "a")
    assert not authorization.is_removed(ONE.public, "b")
    assert not authorization.is_removed(ONE.public)
    authorization.refresh()
    assert removed == [ONE.public]


def test_a_revoked_key_stays_out_though_its_file_is_there(tmp_path: Path) -> None:
    publish(ONE, tmp_path, "alice")
    authorization = KeyFolder(tmp_path)
    authorization.revoke(ONE.public)
    assert authorization.check(ONE.public) is False


def test_a_folder_that_is_missing_comes_and_goes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "keys"
    with caplog.at_level(logging.ERROR, "berrymq_rpc.security"):
        authorization = KeyFolder(folder)
        removed = removed_by(authorization)
        for _ in range(10):
            authorization.refresh()
    assert caplog.text.count("no key is authorized") == 1
    publish(ONE, folder, "alice")
    assert authorization.check(ONE.public) == "alice"
    (folder / "alice.key").rename(tmp_path / "kept")
    folder.rmdir()
    assert authorization.check(ONE.public) is False
    assert removed == [ONE.public]


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_cannot_be_read(tmp_path: Path) -> None:
    publish(ONE, tmp_path, "alice")
    authorization = KeyFolder(tmp_path)
    assert authorization.check(ONE.public) == "alice"
    tmp_path.chmod(0)
    try:
        assert authorization.check(ONE.public) is False
    finally:
        tmp_path.chmod(0o700)


def test_what_is_no_key_authorizes_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    publish(ONE, tmp_path, "alice")
    (tmp_path / "broken.key").write_text("curve\n    public-key = nonsense\n")
    (tmp_path / "folder.key").mkdir()
    (tmp_path / "gone.key").symlink_to(tmp_path / "nowhere")
    (tmp_path / ".hidden.key").write_text(f'curve\n    public-key = "{OTHER.public}"\n')
    with caplog.at_level(logging.ERROR, "berrymq_rpc.security"):
        authorization = KeyFolder(tmp_path)
        for _ in range(10):
            authorization.refresh()
    assert authorization.check(ONE.public) == "alice"
    assert authorization.check(OTHER.public) is False
    assert caplog.text.count("broken.key authorizes no key") == 1


def test_a_listener_that_left_hears_nothing() -> None:
    authorization = KeySet({ONE.public})
    removed: list[str] = []
    remove = authorization.add_listener(removed.append)
    remove()
    remove()
    authorization.revoke(ONE.public)
    assert removed == []


def test_a_server_revokes_for_all_its_sockets() -> None:
    security = CurveServer([ONE, OTHER], {ONE.public})
    first, second = security.for_endpoint(0), security.for_endpoint(1)
    assert [value.keys for value in (first, second)] == [(ONE,), (OTHER,)]
    first.revoke(ONE.public)
    assert second.authorization.check(ONE.public) is False


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_while_the_folder_is_read(tmp_path: Path) -> None:
    publish(ONE, tmp_path, "alice")
    authorization = KeyFolder(tmp_path)
    removed = removed_by(authorization)
    with authorization._lock:
        child = os.fork()
        if child == 0:
            # Without the lock of the parent's thread, and without telling the parent's listeners.
            signal.alarm(10)
            status = 1
            try:
                if authorization.check(ONE.public) == "alice":
                    authorization.revoke(ONE.public)
                    status = 0 if authorization.check(ONE.public) is False and not removed else 2
            finally:
                os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert authorization.check(ONE.public) == "alice"


def test_what_is_shown() -> None:
    security = CurveServer(ONE, {OTHER.public})
    assert repr(security) == f"<CurveServer {ONE.public}, authorized: 1 keys>"
    assert ONE.secret not in repr(security)
    assert ONE.secret not in repr(security.client(OTHER.public))
    with pytest.raises(ValueError, match="keys: give a KeyPair"):
        CurveServer([], ())
    with pytest.raises(TypeError, match="keys: a KeyPair or the path"):
        CurveServer(5, ())  # type: ignore[arg-type]
