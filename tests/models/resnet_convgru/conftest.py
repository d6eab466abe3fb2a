import pytest

from tests.models.resnet_convgru.golden import Golden


@pytest.fixture(scope="session")
def golden(shared):
    return Golden(shared)
