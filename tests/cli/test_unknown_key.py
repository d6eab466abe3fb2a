"""The sentence for a misspelt key."""

from lightning_prune.cli.unknown_key import unknown_key


def test_unknown_key_without_a_near_miss_lists_all():
    text = unknown_key("model.zzz", "Line", ["lr", "names", "_target_"])
    assert text == "model.zzz is not known to Line. Allowed: lr, names"
