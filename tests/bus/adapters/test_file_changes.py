"""In which order the changes of files are sent."""

from pathlib import Path

import pytest

from berrymq_rpc.bus.adapters.file_changes import Change, files_below, in_order

C, M, R = Change.CREATED, Change.MODIFIED, Change.REMOVED


@pytest.mark.parametrize(
    ("reported", "there", "gone"),
    [
        ([C], [C], [C]),
        ([M], [M], []),
        ([R], [R], [R]),
        ([C, M], [C], [C]),
        ([M, R], [R], [R]),
        ([C, R], [R, C], [C, R]),
        ([C, M, R], [R, C], [C, R]),
    ],
)
def test_of_one_path(
    tmp_path: Path, reported: list[Change], there: list[Change], gone: list[Change]
) -> None:
    path = tmp_path / "file"
    for order in (reported, reported[::-1]):
        changes = [(change, str(path)) for change in order]
        assert [change for change, _ in in_order(changes)] == gone
        path.touch()
        assert [change for change, _ in in_order(changes)] == there
        path.unlink()


def test_a_folder_comes_before_what_is_in_it_and_is_never_modified(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "b").touch()
    reports = [(C, str(folder / "b")), (M, str(tmp_path)), (C, str(folder))]
    assert list(in_order(reports)) == [(C, str(folder)), (C, str(folder / "b"))]


def test_a_link_to_nothing_exists(tmp_path: Path) -> None:
    path = tmp_path / "link"
    path.symlink_to("nowhere")
    assert list(in_order([(C, str(path)), (R, str(path))])) == [(R, str(path)), (C, str(path))]


def test_files_below(tmp_path: Path) -> None:
    (tmp_path / "b" / "c").mkdir(parents=True)
    for name in ("a", "b/x", "b/c/y"):
        (tmp_path / name).touch()
    found = [
        Path(path).relative_to(tmp_path).as_posix() for path in files_below(str(tmp_path), True, 9)
    ]
    assert found == ["b", "a", "b/c", "b/x", "b/c/y"]
    assert len(files_below(str(tmp_path), True, 3)) == 3
    assert len(files_below(str(tmp_path), False, 9)) == 2
    assert files_below(str(tmp_path / "missing"), True, 9) == []
