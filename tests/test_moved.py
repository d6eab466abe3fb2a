"""Earlier names of modules lead to what took their place."""

import importlib
import sys

import pytest

from lightning_prune.moved import MOVED


@pytest.mark.parametrize("name", MOVED)
def test_earlier_names_give_the_same_objects_and_say_the_new_name(
    name: str, monkeypatch: pytest.MonkeyPatch
):
    old, home = f"lightning_prune.{name}", f"lightning_prune.{MOVED[name]}"
    monkeypatch.delitem(sys.modules, old, raising=False)
    with pytest.warns(FutureWarning, match=f"{old} is {home} now"):
        found = importlib.import_module(old)
    new = importlib.import_module(home)
    public = [n for n, value in vars(new).items() if getattr(value, "__module__", "") == home]
    assert public
    assert all(getattr(found, n) is getattr(new, n) for n in public)


def test_names_that_never_were_are_not_found():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("lightning_prune.pruners.never_was")
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("lightning_prune.callbacks.never_was")
