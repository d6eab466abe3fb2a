from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_prune.data import checks
from lightning_prune.data.checks import DataError, Findings, Problem, image_sizes, settle
from tests.data.folders import write_image


def findings(**counts: int) -> Findings:
    result = Findings()
    for name, count in counts.items():
        for index in range(count):
            result.add(Problem[name], f"{name.lower()} at {index}")
    return result


def test_message_counts_names_and_advises() -> None:
    message = findings(DUPLICATE=1, CORRUPT_IMAGE=7).message().splitlines()
    assert message == [
        "  7 x corrupt or unreadable image",
        *[f"      corrupt_image at {index}" for index in range(5)],
        "      ... and 2 more",
        "      -> restore the file or remove it",
        "  1 x box given twice (taken once)",
        "      duplicate at 0",
    ]


def test_nothing_found_says_nothing() -> None:
    settle(Findings(), "raise", "data.yaml", 0)


def test_fatal_problem_raises_with_everything_found() -> None:
    with pytest.raises(DataError) as caught:
        settle(findings(UNKNOWN_CLASS=1, POLYGON=2), "raise", "data.yaml", 1)
    text = str(caught.value)
    assert text.startswith("data.yaml: the data set has problems:")
    assert "1 x class id out of range" in text
    assert "2 x polygon" in text
    assert 'on_error="skip"' in text


def test_skip_warns_and_tells_what_is_left_out() -> None:
    with pytest.warns(UserWarning, match=r"1 x class id(.|\n)*3 pictures are left out"):
        settle(findings(UNKNOWN_CLASS=1), "skip", "data.yaml", 3)


def test_peculiarities_only_warn() -> None:
    with pytest.warns(UserWarning, match="2 x image without label file"):
        settle(findings(NO_LABEL_FILE=2), "raise", "data.yaml", 0)


def test_sizes_of_pictures(tmp_path: Path) -> None:
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
    decoded = image_sizes(paths)
    assert decoded[:2] == [(20, 30), (30, 20)]
    assert "torn.jpg" in str(decoded[2])
    assert "truncated" in str(decoded[2])
    assert "cannot identify" in str(decoded[3])
    assert "No such file" in str(decoded[4])
    headers = image_sizes(paths, decode=False)
    # the header of a torn file is whole
    assert headers[:3] == [(20, 30), (30, 20), (200, 200)]
    assert isinstance(headers[3], str)


def test_many_pictures_with_progress_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_PROGRESS_FROM", 3)
    paths = [write_image(tmp_path / f"{index}.png", 4, 5 + index) for index in range(4)]
    assert image_sizes(paths) == [(4, 5), (4, 6), (4, 7), (4, 8)]
