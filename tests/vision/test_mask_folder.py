from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_prune.errors import DataError
from lightning_prune.vision.mask_folder import MaskFolderData
from tests.vision.mask_folders import scene, write_folder


def data(root: Path, **options: Any) -> MaskFolderData:
    return MaskFolderData(root, **{"image_size": 32, "batch_size": 2, **options})


def trainer(**values: Any) -> Any:
    counters = SimpleNamespace(current=SimpleNamespace(processed=0))
    loop = SimpleNamespace(epoch_progress=counters)
    defaults = {"global_rank": 0, "world_size": 1, "max_epochs": 20, "fit_loop": loop}
    return SimpleNamespace(**{**defaults, **values})


def save(path: Path, values: np.ndarray) -> None:
    Image.fromarray(values).save(path)


def test_loaders_give_images_and_masks(tmp_path: Path) -> None:
    module = data(write_folder(tmp_path))
    module.setup("fit")
    assert (module.names, module.num_classes) == (["background", "left", "right"], 3)
    images, masks = next(iter(module.val_dataloader()))
    assert images.shape == (2, 3, 32, 32)
    assert images.dtype == torch.float32
    assert masks.shape == (2, 32, 32)
    assert torch.equal(masks[1], torch.from_numpy(scene(1 + 300)[1]).long())
    assert len(module.train_dataloader()) == 3
    assert "test" not in module._datasets


def test_the_other_order_of_folders(tmp_path: Path) -> None:
    write_folder(tmp_path / "a")
    for part in ("images", "masks"):
        for split in ("train", "val"):
            target = tmp_path / "b" / part / split
            target.parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "a" / split / part).rename(target)
    module = data(tmp_path / "b", names=["a", "b", "c"])
    assert module.splits == ("train", "val")
    assert len(module.dataset("test")) == len(module.dataset("val")) == 3


def test_training_images_are_varied_and_collected_ones_are_not(tmp_path: Path) -> None:
    module = data(write_folder(tmp_path), batch_size=6)
    module.trainer = trainer()
    ((images, _),) = module.train_dataloader()
    ((collected, masks),) = module.collection_dataloader()
    assert torch.equal(masks[4], torch.from_numpy(scene(4 + 500)[1]).long())
    assert not any(torch.equal(a, b) for a in images for b in collected)


@pytest.mark.parametrize("world_size", [1, 2])
def test_ranks_share_the_images(world_size: int, tmp_path: Path) -> None:
    write_folder(tmp_path)
    seen: dict[str, list[float]] = {"train": [], "val": []}
    for rank in range(world_size):
        module = data(tmp_path)
        module.trainer = trainer(global_rank=rank, world_size=world_size)
        for name, loader in [
            ("train", module.train_dataloader()), ("val", module.val_dataloader()),
        ]:  # fmt: skip
            seen[name] += [float(image.sum()) for images, _ in loader for image in images]
    assert [len(set(values)) for values in seen.values()] == [6, 3]
    assert [len(values) for values in seen.values()] == [6, 3]


def test_everything_wrong_is_said_at_once(tmp_path: Path) -> None:
    folder = write_folder(tmp_path) / "train"
    (folder / "masks/0.png").unlink()
    save(folder / "masks/1.png", np.full((32, 32), 7, dtype=np.uint8))
    save(folder / "masks/2.png", np.zeros((32, 30), dtype=np.uint8))
    (folder / "masks/3.png").write_bytes((folder / "masks/3.png").read_bytes()[:60])
    (folder / "images/4.png").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    save(folder / "masks/alone.png", np.zeros((2, 2), dtype=np.uint8))
    with pytest.raises(DataError) as caught:
        data(tmp_path).setup("fit")
    text = str(caught.value)
    for part in (
        "1 x image without mask",
        "2 x corrupt or unreadable image",
        "Git LFS",
        "1.png: 7, with 3 classes (0 to 2)",
        "name all classes, or read masks of 0 and another value with binary=true",
        f"(32, 32), {folder / 'masks/2.png'}: (32, 30) (h, w)",
        "a mask has the height and width of its image",
        "1 x mask whose image is not there (left out)",
        'on_error="skip"',
    ):
        assert part in text
    assert "boxes" not in text
    module = data(tmp_path, on_error="skip")
    with pytest.warns(UserWarning, match="5 images are left out"):
        module.setup("fit")
    assert [record.image.name for record in module.dataset("train").records] == ["5.png"]


def test_most_masks_pointers_of_git_lfs(tmp_path: Path) -> None:
    folder = write_folder(tmp_path) / "train/masks"
    for path in folder.iterdir():
        path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\n")
    with pytest.raises(DataError, match=r"6 of 6 images are not images: .*Git LFS"):
        data(tmp_path).setup("fit")


def test_colour_masks_say_what_to_do(tmp_path: Path) -> None:
    folder = write_folder(tmp_path) / "val/masks"
    save(folder / "0.png", np.zeros((32, 32, 3), dtype=np.uint8) + np.uint8([9, 0, 200]))
    with pytest.raises(DataError, match=r"\[9, 0, 200\](.|\n)*pass colors=\{NAME: "):
        data(tmp_path).setup("fit")


def test_masks_of_0_and_255_need_a_word(tmp_path: Path) -> None:
    write_folder(tmp_path, names=None)
    for path in tmp_path.rglob("masks/*.png"):
        save(path, np.where(np.asarray(Image.open(path)) > 0, 255, 0).astype(np.uint8))
    with pytest.raises(DataError, match=r"only the class 0: their other value, 255, .*binary=true"):
        data(tmp_path, names=["background", "cell"]).setup("fit")
    module = data(tmp_path, binary=True)
    module.setup("fit")
    assert module.names == ["background", "foreground"]
    assert set(module.dataset("train")[0][1].unique().tolist()) == {0, 1}


def test_masks_of_one_class_teach_nothing(tmp_path: Path) -> None:
    write_folder(tmp_path)
    for path in tmp_path.rglob("masks/*.png"):
        save(path, np.ones((32, 32), dtype=np.uint8))
    with pytest.raises(DataError, match="only the class 1: there is nothing to learn"):
        data(tmp_path).setup("fit")


def test_masks_of_images_that_exif_turns(tmp_path: Path) -> None:
    folder = write_folder(tmp_path) / "train"
    image, mask = scene(3, (24, 32))
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(image).save(folder / "images/0.png", exif=turned)
    save(folder / "masks/0.png", mask)
    module = data(tmp_path)
    with pytest.warns(UserWarning, match="taken as it is stored"):
        module.setup("fit")
    found, labels = module.dataset("train")[0]
    assert np.array_equal(labels[4:28].numpy(), mask)
    assert np.array_equal(found[:, 4:28].permute(1, 2, 0).numpy(), image)


def test_headers_are_enough_where_asked_for(tmp_path: Path) -> None:
    path = write_folder(tmp_path) / "train/images/0.png"
    path.write_bytes(path.read_bytes()[:-200])
    data(tmp_path, decode_check=False).setup("fit")
    with pytest.raises(DataError, match=r"0.png"):
        data(tmp_path).setup("fit")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 50}, "image_size=50: pass a multiple of 32"),
        ({"scale": 1.0}, "scale=1.0: pass a number in"),
        ({"ignore_index": 0}, "ignore_index=0: pass an integer"),
        ({"ignore_index": 2}, "ignore_index=2 is the class 'right': pass a value from 3 on"),
        ({"colors": {"left": "red", "right": [1, 2, 3]}}, "left is red: give"),
        ({"channels": 4}, "channels=4: pass 1 or 3"),
    ],
)
def test_arguments_out_of_range(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        data(write_folder(tmp_path), **options)


def test_no_test_split_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr("lightning_prune.data.split_data.rank_zero_info", said.append)
    module = data(write_folder(tmp_path, {"train": 3, "val": 2}))
    module.setup("test")
    assert module.test_dataloader().dataset is module.dataset("val")
    assert "no test split" in said[0]
