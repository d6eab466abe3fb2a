"""Files, folders and patterns."""

from pathlib import Path

import pytest

from lightning_prune.detection.predict.sources import find_sources


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("b.JPG", "a.png", "deep/er/c.webp", "clip.mp4", "notes.txt", ".hidden/d.jpg"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "in/deep/up").symlink_to(tmp_path / "in")  # a circle
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/e[1].jpg").touch()
    (tmp_path / "in/link").symlink_to(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(words: list[str]) -> list[str]:
    return [source.name.as_posix() for source in find_sources(words)[0]]


def test_a_folder_with_the_folders_in_it(folder: Path):
    sources, others = find_sources(["in"])
    assert [source.name.as_posix() for source in sources] == [
        "a.png", "b.JPG", "clip.mp4", "deep/er/c.webp", "link/e[1].jpg",
    ]  # fmt: skip
    assert [source.path for source in sources if source.video] == [Path("in/clip.mp4")]
    assert others == 1


def test_files_and_patterns_each_once(folder: Path):
    assert names(["in/b.JPG", "in/*.png", "in", "in/a.png"])[:2] == ["b.JPG", "a.png"]
    assert len(names(["in", str(folder / "in")])) == 5
    assert names(["in/**/*.webp"]) == ["c.webp"]
    assert names(["elsewhere/e[1].jpg"]) == ["e[1].jpg"]
    assert names(["in/notes.txt"]) == ["notes.txt"]  # named itself: reading it says what it is
    assert names(["in/*.txt", "in/a.png"]) == ["a.png"]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("nowhere", "no file, folder or pattern nowhere"),
        ("in/*.gif", r"no image or video in in/\*.gif: known are .*\.jpg"),
        ("in/*.txt", r"no image or video in in/\*.txt \(1 other files\)"),
        ("https://x.org/a.jpg", "addresses are not read: download the file first"),
        ("0", "no file, folder or pattern 0: cameras are not read"),
    ],
)
def test_refusals(word: str, message: str, folder: Path):
    with pytest.raises(ValueError, match=message):
        find_sources([word])
