from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_prune.files.file_error import FileError
from lightning_prune.files.read_yaml import parse_yaml, read_yaml


def bomb(levels: int, width: int = 9) -> str:
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * width)}]" for i in range(levels)]
    return "\n".join(lines)


def merges(levels: int) -> str:
    lines = ["m0: &m0 {k: 1}"]
    lines += [f"m{i + 1}: &m{i + 1} {{<<: [*m{i}, *m{i}]}}" for i in range(levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (bomb(9), "aliases stand for more than 1,000,000 values"),
        (merges(40), "aliases stand for more than"),
        ("a: &a [1, *a]", r"\*a holds itself"),
        ("[" * 200_000, "nested more than 100 deep|maximum nesting depth"),
        ("\n".join(" " * i + "a:" for i in range(150)), "nested more than 100 deep"),
        ("n: " + "1:" * 100_000 + "1", "a value of 200001 characters"),
        ("n: !!int '" + "1:" * 100_000 + "1'", "a value of 200001 characters"),
        ("n: " + "9" * 4400, "a value of 4400|digits"),
        ("n: " + "9" * 4090, None),
        ("nc: 1\nnames: [a]\nnc: 2", "line 3: the key 'nc' stands twice"),
        ("a: *nothing", "line 1: found undefined alias"),
        ("!!python/object/apply:os.system [touch x]", "could not determine a constructor"),
        ("a: [1, 2", "no YAML: line"),
        ("a: 2020-13-45", "month"),
        ("a: !!int x", "invalid literal"),
        ("{[1]: 2}", "unhashable"),
        ("a: \x00", "no YAML"),
        ("x: 1\n--- \ny: 2", "no YAML: .*another document"),
    ],
)
def test_what_would_take_for_ever_is_refused_with_its_line(tmp_path: Path, text, message):
    (tmp_path / "a.yaml").write_text(text)
    if message is None:
        assert read_yaml(tmp_path / "a.yaml")["n"] == int("9" * 4090)
        return
    with pytest.raises(FileError, match=message) as caught:
        read_yaml(tmp_path / "a.yaml")
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


def test_ordinary_files_are_read_as_by_yaml(tmp_path: Path):
    text = "\n".join([bomb(2, 2), merges(2), "base: &b {x: 1}\nown: {<<: *b, x: 2}\nempty:"])
    (tmp_path / "a.yaml").write_text("\ufeff" + text, encoding="utf-8")
    assert read_yaml(tmp_path / "a.yaml") == yaml.safe_load(text)
    assert parse_yaml("") is None
    for path in (Path(__file__).parents[2] / "conf").rglob("*.yaml"):
        assert read_yaml(path) == yaml.safe_load(path.read_text(encoding="utf-8"))


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=12,
)


@settings(max_examples=50, deadline=None)
@given(plain)
def test_what_yaml_writes_is_read(value):
    assert parse_yaml(yaml.safe_dump(value)) == value


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="ab:-&*[]{}<!|>'\"# \n\t0", max_size=40))
def test_any_text_is_read_or_refused(text):
    try:
        found = parse_yaml(text)
    except ValueError:
        return
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    assert str(found) == str(yaml.load(text, Loader=loader))
