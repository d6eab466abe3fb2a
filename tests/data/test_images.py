from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_prune.data.images import ImageError, read_image

GREY = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
COLOUR = np.stack([GREY, GREY[::-1], GREY[:, ::-1]], axis=2)


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    Image.fromarray(GREY).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.stack([GREY] * 3, axis=2))


def test_sixteen_bits_keep_the_upper_byte(tmp_path: Path) -> None:
    Image.fromarray(GREY.astype(np.uint16) * 256 + 37).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.stack([GREY] * 3, axis=2))


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


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_other_content(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ImageError, match=r"a\.png"):
        read_image(tmp_path / "a.png")


def test_absent_file(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="No such file"):
        read_image(tmp_path / "a.png")


def test_floating_point_picture_is_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((4, 4), dtype=np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match="convert the file to 8 bits"):
        read_image(tmp_path / "a.tif")
