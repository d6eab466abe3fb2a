"""The first bytes by which kinds of files are known."""

import re
from dataclasses import dataclass, field
from typing import Literal

Expected = Literal["weights", "checkpoint", "image", "video", "annotations", "recording", "onnx"]

UNPACK = "unpack it and give the file inside"
CONVERT = (
    "load it with the library that wrote it and save the state dict with torch.save or safetensors"
)
OTHER = "another file belongs under this name"


@dataclass(frozen=True)
class Magic:
    """A kind of file.

    Attributes:
        what: Its name in a sentence.
        mark: The bytes at ``place``, or a pattern that the beginning matches.
        advice: What to do with it, in the imperative.
        fits: For what it may be given.
        place: Where the mark stands.
    """

    what: str
    mark: bytes | re.Pattern[bytes]
    advice: str = OTHER
    fits: frozenset[str] = field(default_factory=frozenset)
    place: int = 0

    def matches(self, head: bytes) -> bool:
        """Return whether a file that begins like this is of the kind."""
        if isinstance(self.mark, bytes):
            return head.startswith(self.mark, self.place)
        return self.mark.match(head, self.place) is not None


_IMAGE = frozenset({"image"})
_VIDEO = frozenset({"video"})
_RECORDING = frozenset({"recording"})

MAGIC = (
    # Archives and compressed streams
    Magic("a gzip file", b"\x1f\x8b", UNPACK),
    Magic("a bzip2 file", re.compile(rb"BZh[1-9]"), UNPACK),
    Magic("an xz file", b"\xfd7zXZ\0", UNPACK),
    Magic("a Zstandard file", b"\x28\xb5\x2f\xfd", UNPACK),
    Magic("an LZ4 file", b"\x04\x22\x4d\x18", UNPACK),
    Magic("a 7-Zip archive", b"7z\xbc\xaf\x27\x1c", UNPACK),
    Magic("a RAR archive", b"Rar!\x1a\x07", UNPACK),
    Magic("a tar archive", b"ustar", UNPACK, place=257),
    # Models and arrays of other libraries
    Magic("an HDF5 file (Keras, MATLAB or a recording)", b"\x89HDF\r\n\x1a\n", CONVERT, _RECORDING),
    Magic("a NumPy array", b"\x93NUMPY", CONVERT, _RECORDING),
    Magic("a MATLAB file", b"MATLAB 5.0 MAT-file", CONVERT),
    Magic("a GGUF file of llama.cpp", b"GGUF", CONVERT),
    Magic("a TensorFlow Lite model", b"TFL3", CONVERT, place=4),
    Magic(
        "an ONNX model",
        re.compile(rb"\x08[\x01-\x14][\x12\x1a\x22\x28\x32\x3a\x42\x72]"),
        "give the .pt, .ckpt or .safetensors file that it was exported from",
        frozenset({"onnx"}),
    ),
    Magic("a SQLite database", b"SQLite format 3\0"),
    Magic("a Parquet file", b"PAR1"),
    # Images and videos
    Magic("a JPEG image", b"\xff\xd8\xff", fits=_IMAGE),
    Magic("a PNG image", b"\x89PNG\r\n\x1a\n", fits=_IMAGE),
    Magic("a GIF image", re.compile(rb"GIF8[79]a"), fits=_IMAGE | _VIDEO),
    Magic("a WebP image", re.compile(rb"RIFF....WEBP", re.DOTALL), fits=_IMAGE),
    Magic("a TIFF image", re.compile(rb"II[*+]\0|MM\0[*+]"), fits=_IMAGE | _RECORDING),
    Magic("a PNM image", re.compile(rb"P[1-7][\s#]"), fits=_IMAGE),
    Magic("a BMP image", re.compile(rb"BM....\0\0\0\0", re.DOTALL), fits=_IMAGE),
    Magic(
        "an HEIF or AVIF image",
        re.compile(rb"....ftyp(?:hei[cfmsx]|hev[cmsx]|mif1|msf1|avi[fs])", re.DOTALL),
        fits=_IMAGE,
    ),
    Magic("a video", re.compile(rb"....ftyp", re.DOTALL), fits=_VIDEO),
    Magic("a video", re.compile(rb"RIFF....AVI ", re.DOTALL), fits=_VIDEO),
    Magic("a video", b"\x1a\x45\xdf\xa3", fits=_VIDEO),
    # What operating systems and offices leave
    Magic("a PDF document", b"%PDF-"),
    Magic("an old Office document", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"),
    Magic("a resource fork of macOS, without the file", b"\x00\x05\x16\x07"),
    Magic("a .DS_Store of macOS", b"\x00\x00\x00\x01Bud1"),
    Magic("a property list of macOS (a placeholder of iCloud or a web link)", b"bplist00"),
    Magic("a shortcut of Windows", b"\x4c\x00\x00\x00\x01\x14\x02\x00", "give what it leads to"),
    Magic("a program of Linux", b"\x7fELF"),
    Magic("a program of Windows", re.compile(rb"MZ.{0,64}?\0", re.DOTALL)),
)
"""In this order: the first that matches counts."""
