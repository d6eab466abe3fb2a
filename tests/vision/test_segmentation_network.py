import sys

import pytest

from lightning_prune.vision.segmentation_network import build_network


def test_the_extra_is_named_where_the_package_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(ImportError, match=r"pip install 'lightning_prune\[segmentation\]'"):
        build_network("Unet", "resnet18", 3, 3)
