import pytest

from tests.neural.network.golden import Golden


@pytest.fixture(scope="session")
def golden(golden_vectors):
    return Golden(golden_vectors)
