from pathlib import Path

import pytest

from lightning_prune.data.checks import Findings, Problem
from lightning_prune.errors import DataError
from lightning_prune.vision.mask_layout import MaskFolders, find_splits, pair_up


def touched(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def folders(root: Path, images: list[str], masks: list[str]) -> MaskFolders:
    return MaskFolders(touched(root / "images", *images), touched(root / "masks", *masks))


def test_split_above_or_below_its_parts(tmp_path: Path) -> None:
    for part in ("train/images", "train/masks", "images/valid", "masks/valid", "test/images"):
        touched(tmp_path / part)
    found = find_splits(tmp_path)
    assert found["train"] == MaskFolders(tmp_path / "train/images", tmp_path / "train/masks")
    assert found["val"] == MaskFolders(tmp_path / "images/valid", tmp_path / "masks/valid")
    assert "test" not in found  # it has no masks


def test_a_split_that_is_not_there_is_named(tmp_path: Path) -> None:
    touched(tmp_path / "train/images"), touched(tmp_path / "train/masks")
    with pytest.raises(DataError, match=r"no split `val`: wanted are .* it holds train"):
        find_splits(tmp_path)


@pytest.mark.parametrize(("name", "what"), [("absent", "does not exist"), ("file", "is a file")])
def test_a_root_that_is_no_folder(name: str, what: str, tmp_path: Path) -> None:
    touched(tmp_path, "file")
    with pytest.raises(DataError, match=what):
        find_splits(tmp_path / name)


def test_pairs_by_name_in_subfolders_too(tmp_path: Path) -> None:
    given = folders(
        tmp_path, ["b.jpg", "a.png", "deep/a.jpg"], ["a.png", "b_mask.png", "deep/a.tif", "x.txt"]
    )
    findings = Findings()
    pairs = pair_up(given, findings)
    names = [
        (p.image.relative_to(given.images).as_posix(), p.mask.relative_to(given.masks).as_posix())
        for p in pairs
    ]
    assert names == [("a.png", "a.png"), ("b.jpg", "b_mask.png"), ("deep/a.jpg", "deep/a.tif")]
    assert not findings.places


def test_what_has_no_partner_is_found(tmp_path: Path) -> None:
    given = folders(tmp_path, ["a.jpg", "b.jpg", "c.jpg"], ["a.png", "d.png", "._b.png"])
    findings = Findings()
    assert len(pair_up(given, findings)) == 1
    assert findings.count(Problem.NO_MASK) == 2
    assert findings.places[Problem.NO_MASK][0].endswith("b.png)")
    assert findings.places[Problem.MASK_ALONE] == [str(given.masks / "d.png")]


@pytest.mark.parametrize(
    ("images", "masks", "message"),
    [
        ([], ["a.png"], "no image in "),
        (["a.jpg"], [], r"no mask in .*known are .bmp, .png, .tif, .tiff\)$"),
        (["a.jpg"], ["a.jpg"], "a.jpg is of a format that changes values: save masks as PNG"),
        (["a.jpg"], ["a.png", "a.bmp"], "are masks of one image: remove one"),
        (["a.jpg"], ["a.png", "a_mask.png"], "are masks of one image: remove one"),
        (["a.jpg"], ["b.png"], "the mask of a.jpg must be called a.png, and there is b.png"),
    ],
)
def test_folders_that_do_not_fit(
    images: list[str], masks: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        pair_up(folders(tmp_path, images, masks), Findings())


def test_a_linked_folder_is_read_once(tmp_path: Path) -> None:
    given = folders(tmp_path, ["a.jpg"], ["a.png"])
    (given.images / "again").symlink_to(given.images)
    assert len(pair_up(given, Findings())) == 1
