from pathlib import Path
from typing import Any

import pytest

from lightning_prune.errors import DataError
from lightning_prune.vision.mask_file import IGNORED
from lightning_prune.vision.mask_names import read_classes


def test_names_of_the_argument_come_first(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("a\nb\n")
    assert read_classes(tmp_path, ["x", "y", "z"]).names == ["x", "y", "z"]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("classes.txt", "sky\n\n  tree \n2\n"),
        ("data.yaml", "names: [sky, tree, 2]\n"),
        ("data.yml", "names: {1: tree, 0: sky, 2: 2}\n"),
    ],
)
def test_names_of_files(file: str, text: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(text)
    assert read_classes(tmp_path).names == ["sky", "tree", "2"]


def test_binary_masks_have_names_of_their_own(tmp_path: Path) -> None:
    assert read_classes(tmp_path, binary=True).names == ["background", "foreground"]
    assert read_classes(tmp_path, ["plate", "cell"], binary=True).names == ["plate", "cell"]


def test_colours_name_the_classes_in_their_order(tmp_path: Path) -> None:
    colors = {"sky": [0, 0, 255], "ignore": [255, 255, 255], "tree": [0, 255, 0]}
    found = read_classes(tmp_path, colors=colors)
    assert found.names == ["sky", "tree"]
    assert found.colors == {(0, 0, 255): 0, (255, 255, 255): IGNORED, (0, 255, 0): 1}


BLACK, WHITE = [0, 0, 0], [255, 255, 255]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "nothing says which classes its masks have: pass names="),
        ({"names": ["cell"]}, "'cell' is the only class: name the background too"),
        ({"names": ["a", "b", "a"]}, "the class 'a' is named twice"),
        ({"names": ["a", "b", "c"], "binary": True}, "binary=true reads two classes, and 3"),
        ({"binary": True, "colors": {"a": BLACK}}, "binary=true and colors"),
        ({"colors": {"a": BLACK, "b": BLACK}}, r"\[0, 0, 0\] is given twice"),
        ({"colors": {"a": BLACK, "b": [0, 0, 256]}}, "b is .*: give .red, green, blue."),
        ({"colors": {"a": BLACK, "b": "red"}}, "b is red: give .red, green, blue."),
        ({"names": ["a", "b"], "colors": {"a": BLACK, "c": WHITE}}, "'c' is none of the classes"),
        ({"names": ["a", "b"], "colors": {"a": BLACK}}, "b has no colour: give all"),
    ],
)
def test_what_contradicts_itself_is_refused(
    arguments: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        read_classes(tmp_path, **arguments)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nc: 3\n", "has no list `names`"),
        ("names: {1: a, 2: b}\n", "number the keys of `names` 0, 1, 2"),
        ("names: [yes, no]\n", r"names\[0\] is no text \(so YAML reads yes"),
        ("names: [a, [b]]\n", r"names\[1\] is no text: put it in quotes"),
        ("names: [\n", "no YAML: line 2"),
    ],
)
def test_a_yaml_that_names_nothing_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(DataError, match=message):
        read_classes(tmp_path)
