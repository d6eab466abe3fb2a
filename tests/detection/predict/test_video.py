"""Videos through whatever reads them here; without, a sentence."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from lightning_prune.detection.predict import video as room
from lightning_prune.detection.predict.video import VideoError, check_video_installed, open_video

needs_backend = pytest.mark.skipif(
    find_spec("cv2") is None and find_spec("av") is None, reason="needs OpenCV or PyAV"
)


def make_clip(path: Path) -> list[np.ndarray]:
    rows, columns = np.mgrid[:48, :64]
    frames = [
        np.stack([rows * 4, columns * 3, np.full_like(rows, 30 * k)], 2).astype(np.uint8)
        for k in range(5)
    ]
    backend = room._OpenCVWriter if find_spec("cv2") is not None else room._PyAVWriter
    with backend(path, 10.0) as writer:
        for frame in frames:
            writer.write(frame)
    return frames


@needs_backend
@pytest.mark.parametrize("kind", ["cv2", "av"])
def test_frames_come_back(kind: str, tmp_path: Path):
    if find_spec(kind) is None:
        pytest.skip(f"needs {kind}")
    frames = make_clip(tmp_path / "clip.mp4")
    reader = room._OpenCV if kind == "cv2" else room._PyAV
    clip = reader(tmp_path / "clip.mp4")
    assert clip.rate == pytest.approx(10)
    assert clip.count in (0, 5)
    found = list(clip.frames())
    assert len(found) == 5
    for frame, expected in zip(found, frames, strict=True):
        assert frame.dtype == np.uint8
        assert np.abs(frame.astype(int) - expected).mean() < 12  # it is compressed
    again = reader(tmp_path / "clip.mp4")
    with again.writer(tmp_path / "copy.mp4") as writer:
        for frame in again.frames():
            writer.write(frame)
    assert len(list(open_video(tmp_path / "copy.mp4").frames())) == 5


@needs_backend
def test_what_is_no_video(tmp_path: Path):
    (tmp_path / "a.mp4").write_bytes(b"\0\0\0\x20ftypisom" + bytes(200))
    with pytest.raises(VideoError, match=r"a.mp4: .*cannot read it as a video"):
        open_video(tmp_path / "a.mp4")
    (tmp_path / "b.mp4").write_text("version https://git-lfs.github.com/spec/v1\nsize 99\n")
    with pytest.raises(VideoError, match=r"b.mp4: a Git LFS pointer to 99 bytes, not a video"):
        open_video(tmp_path / "b.mp4")


def test_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(room, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'lightning-prune\[video\]'"):
        check_video_installed()
    with pytest.raises(ModuleNotFoundError, match="videos need OpenCV or PyAV"):
        open_video(tmp_path / "clip.mp4")


def test_a_folder_named_like_a_backend_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "av").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(room, "find_spec", lambda name: find_spec("av") if name == "av" else None)
    if getattr(find_spec("av"), "origin", None) is None:
        with pytest.raises(ModuleNotFoundError):
            check_video_installed()
