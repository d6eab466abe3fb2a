import pytest

from tests.models.resnet_convgru.golden import Golden


@pytest.fixture(scope="session")
def golden(golden_vectors):
    return Golden(golden_vectors)
