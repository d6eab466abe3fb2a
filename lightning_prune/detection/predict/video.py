"""Videos frame by frame, through OpenCV or PyAV, whichever is installed."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from fractions import Fraction
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from lightning_prune.files.foreign_file import describe_foreign


class VideoError(ValueError):
    """A video that cannot be read or written."""


class Video(ABC):
    """A video that is read once, from its first frame to its last.

    Attributes:
        path: The file.
        rate: Frames a second.
        count: Number of frames that the file claims, 0 where it says nothing.
    """

    def __init__(self, path: Path, rate: float, count: int):
        self.path, self.count = path, max(0, count)
        self.rate = rate if 0 < rate <= 1000 else 25.0

    @abstractmethod
    def frames(self) -> Iterator[np.ndarray]:
        """Yield frames (H, W, 3) uint8, RGB, upright."""

    @abstractmethod
    def writer(self, path: Path) -> "VideoWriter":
        """Return what writes frames of the same rate as an .mp4 file."""


class VideoWriter(ABC):
    """Writes frames of one size; leaving the context closes the file."""

    @abstractmethod
    def write(self, frame: np.ndarray) -> None:
        """Append a frame (H, W, 3) uint8, RGB."""

    @abstractmethod
    def close(self) -> None:
        """End the file."""

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def check_video_installed() -> None:
    """Refuse where nothing that reads videos is installed.

    Raises:
        ModuleNotFoundError: the message holds the command that installs it.
    """
    if not (_installed("cv2") or _installed("av")):
        raise ModuleNotFoundError(
            "videos need OpenCV or PyAV: pip install 'lightning-prune[video]'"
        )


def open_video(path: Path) -> Video:
    """Open a video.

    Raises:
        ModuleNotFoundError: nothing that reads videos is installed.
        VideoError: it cannot be read.
    """
    check_video_installed()
    foreign = describe_foreign(path, "video")
    if foreign is not None:
        raise VideoError(f"{path}: {foreign}")
    return _OpenCV(path) if _installed("cv2") else _PyAV(path)


def _installed(name: str) -> bool:
    found = find_spec(name)
    # A folder of that name beside the program is no package.
    return found is not None and found.origin is not None


class _OpenCV(Video):
    def __init__(self, path: Path):
        cv2 = import_module("cv2")

        self._capture = cv2.VideoCapture(str(path))
        if not self._capture.isOpened():
            raise VideoError(f"{path}: OpenCV cannot read it as a video")
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        super().__init__(
            path, self._capture.get(cv2.CAP_PROP_FPS), int(count) if 0 < count < 1e9 else 0
        )

    def frames(self) -> Iterator[np.ndarray]:
        try:
            while True:
                there, frame = self._capture.read()
                if not there:
                    return
                yield np.ascontiguousarray(frame[:, :, ::-1])
        finally:
            self._capture.release()

    def writer(self, path: Path) -> VideoWriter:
        return _OpenCVWriter(path, self.rate)


class _OpenCVWriter(VideoWriter):
    def __init__(self, path: Path, rate: float):
        self._path, self._rate = path, rate
        self._writer: Any = None

    def write(self, frame: np.ndarray) -> None:
        cv2 = import_module("cv2")

        if self._writer is None:
            size = (frame.shape[1], frame.shape[0])
            code = cv2.VideoWriter.fourcc(*"mp4v")
            self._writer = cv2.VideoWriter(str(self._path), code, self._rate, size)
            if not self._writer.isOpened():
                raise VideoError(f"{self._path}: OpenCV cannot write a video here")
        self._writer.write(np.ascontiguousarray(frame[:, :, ::-1]))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.release()


class _PyAV(Video):
    def __init__(self, path: Path):
        av = import_module("av")

        try:
            self._container = av.open(str(path))
            self._stream = self._container.streams.video[0]
        except (av.FFmpegError, IndexError, OSError) as error:
            raise VideoError(f"{path}: PyAV cannot read it as a video ({error})") from error
        super().__init__(path, float(self._stream.average_rate or 0), self._stream.frames)

    def frames(self) -> Iterator[np.ndarray]:
        av = import_module("av")

        with self._container:
            try:
                for frame in self._container.decode(self._stream):
                    turns = round((getattr(frame, "rotation", 0) or 0) / 90) % 4
                    yield np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))
            except av.FFmpegError as error:
                raise VideoError(f"{self.path}: cut short or damaged ({error})") from error

    def writer(self, path: Path) -> VideoWriter:
        return _PyAVWriter(path, self.rate)


class _PyAVWriter(VideoWriter):
    def __init__(self, path: Path, rate: float):
        av = import_module("av")

        self._container = av.open(str(path), "w")
        self._rate = Fraction(rate).limit_denominator(65535)
        self._stream: Any = None

    def write(self, frame: np.ndarray) -> None:
        av = import_module("av")

        # Its colours have half the resolution: the sizes must be even.
        frame = frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2]
        if self._stream is None:
            self._stream = self._container.add_stream("mpeg4", rate=self._rate)
            self._stream.width, self._stream.height = frame.shape[1], frame.shape[0]
            self._stream.pix_fmt = "yuv420p"
            self._stream.bit_rate = frame.shape[0] * frame.shape[1] * 8
        encoded = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        self._container.mux(self._stream.encode(encoded))

    def close(self) -> None:
        if self._stream is not None:
            self._container.mux(self._stream.encode(None))
        self._container.close()
