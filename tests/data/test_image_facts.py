from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_prune.data import image_facts
from lightning_prune.data.checks import Findings, Problem
from lightning_prune.data.image_facts import ImageFacts, look_at_images, note_images
from lightning_prune.data.images import ImageError
from lightning_prune.errors import DataError
from tests.detection.data.folders import write_image

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize {}\n"


def test_sizes_of_images(tmp_path: Path) -> None:
    good = write_image(tmp_path / "good.jpg", 20, 30)
    turned = tmp_path / "turned.jpg"
    image = Image.fromarray(np.zeros((20, 30, 3), dtype=np.uint8))
    exif = image.getexif()
    exif[0x0112] = 8
    image.save(turned, exif=exif)
    torn = write_image(tmp_path / "torn.jpg", 200, 200)
    torn.write_bytes(torn.read_bytes()[:-2000])
    other = tmp_path / "other.jpg"
    other.write_text("hello")
    paths = [good, turned, torn, other, tmp_path / "absent.jpg"]
    decoded = look_at_images(paths)
    assert decoded[:2] == [ImageFacts(20, 30), ImageFacts(30, 20, lies=True)]
    assert "torn.jpg: image file is truncated" in str(decoded[2])
    assert "other.jpg: cannot identify image file: it is a text" in str(decoded[3])
    assert "absent.jpg: No such file" in str(decoded[4])
    headers = look_at_images(paths, decode=False)
    # the header of a torn file is whole
    assert headers[:3] == [*decoded[:2], ImageFacts(200, 200)]
    assert isinstance(headers[3], ImageError)


def test_many_images_with_progress_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_facts, "MANY", 3)
    paths = [write_image(tmp_path / f"{index}.png", 4, 5 + index) for index in range(4)]
    assert look_at_images(paths) == [ImageFacts(4, 5 + index) for index in range(4)]


def test_what_is_odd_is_noted(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((4, 6), value, np.uint8)) for value in (9, 99, 199)]
    for name in ("a.tif", "a.gif", "a.webp", "a.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    Image.fromarray(np.full((4, 6), 4095, np.uint16)).save(tmp_path / "dim.png")
    Image.fromarray(np.full((4, 6), 60000, np.uint16)).save(tmp_path / "bright.png")
    paths = sorted(tmp_path.iterdir())
    findings = Findings()
    assert note_images(paths, look_at_images(paths), findings) == set()
    assert findings.places == {
        Problem.SEVERAL_IMAGES: [
            f"{tmp_path / name}: 3" for name in ("a.gif", "a.png", "a.tif", "a.webp")
        ],
        Problem.DIM_IMAGE: [f"{tmp_path / 'dim.png'}: at most 4095 of 65535"],
    }


def test_mostly_pointers_are_one_fault(tmp_path: Path) -> None:
    paths = [tmp_path / f"{index}.jpg" for index in range(5)]
    for index, path in enumerate(paths[:3]):
        path.write_text(POINTER.format(1000 + index))
    for path in paths[3:]:
        write_image(path)
    with pytest.raises(DataError) as caught:
        note_images(paths, look_at_images(paths), Findings())
    assert str(caught.value).startswith(
        f"3 of 5 images are not images: the first, {paths[0]}, is a Git LFS pointer to 1,000 bytes"
    )
    assert "run `git lfs install && git lfs pull`" in str(caught.value)
    findings = Findings()
    assert note_images(paths[2:], look_at_images(paths[2:]), findings) == {paths[2]}
    assert findings.count(Problem.CORRUPT_IMAGE) == 1
