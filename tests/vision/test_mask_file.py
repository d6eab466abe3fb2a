import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_prune.data.images import ImageError
from lightning_prune.vision.mask_file import IGNORED, MaskError, MaskReading, read_values

IDS = np.array([[0, 1, 2], [2, 1, 255]], dtype=np.uint8)
CLASSES = [[0, 1, 2], [2, 1, IGNORED]]
PALETTE = [0, 0, 0, 250, 10, 10, 10, 250, 10]


def saved(folder: Path, image: Image.Image, name: str = "mask.png") -> Path:
    image.save(folder / name)
    return folder / name


def grey(ids: np.ndarray = IDS) -> Image.Image:
    return Image.fromarray(ids)


def palette() -> Image.Image:
    image = Image.frombytes("P", grey().size, IDS.tobytes())
    image.putpalette(PALETTE + [7] * (768 - len(PALETTE)))
    return image


def same_channels() -> Image.Image:
    return Image.fromarray(np.repeat(IDS[:, :, None], 3, axis=2))


def transparent() -> Image.Image:
    return Image.merge("LA", [grey(), Image.new("L", (3, 2), 128)])


def sixteen() -> Image.Image:
    return Image.fromarray(IDS.astype(np.uint16))


@pytest.mark.parametrize("make", [grey, palette, same_channels, transparent, sixteen])
def test_values_are_classes(make, tmp_path: Path) -> None:
    found = MaskReading(3).classes(saved(tmp_path, make()))
    assert found.tolist() == CLASSES
    assert found.dtype == np.int32


@pytest.mark.parametrize("suffix", [".bmp", ".tif"])
def test_other_formats_that_keep_values(suffix: str, tmp_path: Path) -> None:
    path = saved(tmp_path, grey(), f"mask{suffix}")
    assert MaskReading(3).classes(path).tolist() == CLASSES


def test_more_than_255_classes_in_16_bits(tmp_path: Path) -> None:
    ids = np.array([[0, 300, 65535]], dtype=np.uint16)
    reading = MaskReading(301, ignore_index=65535)
    found = reading.classes(saved(tmp_path, Image.fromarray(ids)))
    assert found.tolist() == [[0, 300, IGNORED]]


@pytest.mark.parametrize("values", [[0, 255], [0, 1], [0, 128]])
def test_binary_masks(values: list[int], tmp_path: Path) -> None:
    path = saved(tmp_path, grey(np.array([values], dtype=np.uint8)))
    assert MaskReading(2, binary=True).classes(path).tolist() == [[0, 1]]


def test_masks_of_one_bit(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(np.array([[False, True]])))
    assert MaskReading(2).classes(path).tolist() == [[0, 1]]


COLORS = {(0, 0, 0): 0, (250, 10, 10): 1, (10, 250, 10): 2, (7, 7, 7): IGNORED}


def test_colours_become_classes(tmp_path: Path) -> None:
    path = saved(tmp_path, palette().convert("RGB"))
    assert MaskReading(3, colors=COLORS).classes(path).tolist() == CLASSES


def test_colours_of_a_palette_where_they_are_asked_for(tmp_path: Path) -> None:
    assert MaskReading(3, colors=COLORS).classes(saved(tmp_path, palette())).tolist() == CLASSES


def test_grey_values_where_colours_are_asked_for(tmp_path: Path) -> None:
    reading = MaskReading(2, colors={(0, 0, 0): 0, (255, 255, 255): 1})
    path = saved(tmp_path, grey(np.array([[0, 255]], dtype=np.uint8)))
    assert reading.classes(path).tolist() == [[0, 1]]


def test_a_colour_that_has_no_class_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path, palette().convert("RGB"))
    reading = MaskReading(3, colors={(0, 0, 0): 0, (250, 10, 10): 1})
    with pytest.raises(MaskError, match=r"\[7, 7, 7\], \[10, 250, 10\] not in `colors`") as caught:
        reading.classes(path)
    assert caught.value.colors


def test_colours_without_a_mapping_are_named(tmp_path: Path) -> None:
    with pytest.raises(MaskError, match=r"mask.png: colours \[0, 0, 0\], \[7, 7, 7\], \[10"):
        MaskReading(3).classes(saved(tmp_path, palette().convert("RGB")))


def test_values_that_are_no_classes_are_named(tmp_path: Path) -> None:
    ids = np.array([[0, 9, 3, 200]], dtype=np.uint8)
    with pytest.raises(MaskError, match=r"mask.png: 3, 9, 200, with 3 classes \(0 to 2\)"):
        MaskReading(3).classes(saved(tmp_path, grey(ids)))


def test_another_value_may_be_the_one_that_does_not_count(tmp_path: Path) -> None:
    path = saved(tmp_path, grey(np.array([[0, 1, 9]], dtype=np.uint8)))
    assert MaskReading(2, ignore_index=9).classes(path).tolist() == [[0, 1, IGNORED]]


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, Image.fromarray(np.zeros((2, 2), dtype=np.float32)), "mask.tif")
    with pytest.raises(ImageError, match="floating-point pixels are no classes"):
        read_values(path)


def test_a_torn_file_is_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 3, (64, 64), dtype=np.uint8)
    path = saved(tmp_path, grey(noise))
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ImageError, match=r"mask.png"):
        MaskReading(3).classes(path)


def test_errors_travel_between_processes(tmp_path: Path) -> None:
    error = pickle.loads(pickle.dumps(MaskError(tmp_path / "x.png", "odd", True)))
    assert str(error) == f"{tmp_path / 'x.png'}: odd"
    assert error.colors
