import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from lightning_prune.data.images import ImageError, image_suffixes, read_image

GREY = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
COLOUR = np.stack([GREY, GREY[::-1], GREY[:, ::-1]], axis=2)


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.stack([GREY] * 3, axis=2))


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm", "a.jp2"])
@pytest.mark.parametrize("top", [255, 256, 4095, 65535])
def test_sixteen_bits_keep_the_upper_byte(tmp_path: Path, name: str, top: int) -> None:
    values = np.linspace(0, top, 24).reshape(4, 6).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / name)
    expected = np.stack([values // 256] * 3, axis=2)
    np.testing.assert_array_equal(read_image(tmp_path / name), expected)


def test_sixteen_bits_of_the_other_byte_order(tmp_path: Path) -> None:
    values = GREY.astype(np.uint16) * 256 + 37
    entries = [(256, 3, 6), (257, 3, 4), (258, 3, 16), (259, 3, 1), (262, 3, 1), (273, 4, 122),
               (277, 3, 1), (278, 3, 4), (279, 4, 48)]  # fmt: skip
    tags = [
        struct.pack(">HHII", t, kind, 1, v << (16 if kind == 3 else 0)) for t, kind, v in entries
    ]
    header = b"MM\0*" + struct.pack(">IH", 8, 9) + b"".join(tags) + bytes(4)
    (tmp_path / "a.tif").write_bytes(header + values.astype(">u2").tobytes())
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), np.stack([GREY] * 3, axis=2))


@pytest.mark.parametrize(("low", "high"), [(0, 65536), (-1, 5)])
def test_more_than_sixteen_bits_are_refused(tmp_path: Path, low: int, high: int) -> None:
    Image.fromarray(np.array([[low, high]], np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match=f"pixels from {low} to {high} have no agreed range"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", sorted(image_suffixes() - {".apng", ".mpo"}))
def test_every_ending_is_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix.upper()}"
    # of pixels in blocks of 8 nothing much is lost
    grey = np.kron(np.array([[0, 255], [255, 0]], np.uint8), np.ones((16, 16), np.uint8))
    mode = {".pbm": "1", ".pgm": "L"}.get(suffix, "RGB")
    kind = "TIFF" if suffix == ".tif" else None
    Image.fromarray(grey).convert(mode).save(path, kind or Image.registered_extensions()[suffix])
    found = read_image(path)
    assert found.shape == (32, 32, 3)
    assert np.abs(found[4:12, 4:12].astype(int) - 0).max() < 8
    assert np.abs(found[4:12, 20:28].astype(int) - 255).max() < 8


@pytest.mark.parametrize(("mode", "value"), [("1", 255), ("L", 99), ("LA", 99), ("P", 99)])
def test_grey_modes(tmp_path: Path, mode: str, value: int) -> None:
    image = Image.fromarray(np.array([[0, value]], np.uint8)).convert(mode)
    image.save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").tolist() == [[[0] * 3, [value] * 3]]


def test_the_first_of_several_images(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((16, 16), value, np.uint8)) for value in (10, 200)]
    for name in ("a.tif", "a.gif", "a.webp", "a.png", "a.mpo"):
        options = {"lossless": True} if name == "a.webp" else {}
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], **options)
        assert np.abs(read_image(tmp_path / name).astype(int) - 10).max() <= 1, name


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_leaves_the_image_as_it_is_stored(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\0\0", quality=100)
    found = read_image(tmp_path / "a.jpg")
    assert np.abs(found[:, :, 0].astype(int) - GREY).max() < 3


def test_pixels_as_they_are_stored(tmp_path: Path) -> None:
    image = Image.fromarray(COLOUR)
    for orientation in range(1, 9):
        exif = image.getexif()
        exif[0x0112] = orientation
        image.save(tmp_path / "a.png", exif=exif)
        np.testing.assert_array_equal(read_image(tmp_path / "a.png", upright=False), COLOUR)
        expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.png")))
        np.testing.assert_array_equal(read_image(tmp_path / "a.png"), expected)


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to("gone.png")
    for name, words in (("pipe", "a named pipe"), ("folder", "a folder"), ("link", "a link to")):
        with pytest.raises(ImageError, match=rf"{name}\.png: {words}"):
            read_image(tmp_path / f"{name}.png")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("version https://git-lfs.github.com/spec/v1\nsize 12\n", "a Git LFS pointer to 12 bytes"),
        ("<!DOCTYPE html><html>", "a web page"),
        ("", "an empty file"),
    ],
)
def test_other_files_are_named(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "a.jpg").write_text(content)
    with pytest.raises(ImageError, match=f"cannot identify image file: it is {words}") as caught:
        read_image(tmp_path / "a.jpg")
    assert caught.value.foreign is not None
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)


def test_real_photographs_are_read_as_pillow_reads_them(shared: Path) -> None:
    for path in sorted((shared / "data" / "coco_open" / "images" / "val").glob("*.jpg"))[:3]:
        with Image.open(path) as image:
            np.testing.assert_array_equal(read_image(path), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["RGBA", "P", "CMYK"])
def test_colour_modes(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.fromarray(COLOUR).convert(mode).save(path)
    image = read_image(path)
    assert image.shape == (4, 6, 3)
    assert image.dtype == np.uint8
    tolerance = 40 if mode == "P" else 1  # the palette is a coarse one
    assert np.abs(image.astype(int) - COLOUR).max() <= tolerance


def test_palette_with_transparency(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), mode=None).convert("P")
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.save(tmp_path / "a.png", transparency=b"\x00\xff")
    assert read_image(tmp_path / "a.png").tolist() == [[[255, 0, 0], [0, 0, 255]]]


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    image = Image.fromarray(COLOUR)
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    image.save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.rot90(COLOUR, -1))


def test_truncated_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ImageError, match=r"a\.jpg.*truncated"):
        read_image(path)


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_other_content(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ImageError, match=r"a\.png"):
        read_image(tmp_path / "a.png")


def test_absent_file(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="No such file"):
        read_image(tmp_path / "a.png")


def test_floating_point_image_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((4, 4), dtype=np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match="convert the file to 8 bits"):
        read_image(tmp_path / "a.tif")
