"""The optional k-medoids backend: PAM of scikit-learn-extra."""

import importlib
import warnings

import numpy as np
from numpy.typing import NDArray

_HOW_TO_INSTALL = (
    "the sklearn_extra backend needs scikit-learn-extra: pip install "
    "'lightning-prune[sklearn-extra]' on Python < 3.12 with numpy < 2 (its last wheel knows "
    'neither newer Python nor newer numpy), or use backend="native"'
)


def check_installed() -> None:
    """Check that the backend can be used.

    Raises:
        ImportError: scikit-learn-extra is missing, or was built for another numpy.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "distutils Version classes", DeprecationWarning)
        try:
            importlib.import_module("sklearn_extra.cluster")
        except (ImportError, ValueError) as error:  # a numpy of another ABI raises ValueError
            raise ImportError(f"{_HOW_TO_INSTALL} ({error})") from error


def pam(diss: NDArray[np.float64], k: int, seed: int) -> NDArray[np.int64]:
    """Return the medoids that ``sklearn_extra.cluster.KMedoids(method="pam")`` finds.

    Raises:
        ImportError: If scikit-learn-extra is missing, or was built for another numpy.
    """
    if k == diss.shape[0]:  # PAM warns about a cluster for each point, and there is no choice
        return np.arange(k, dtype=np.int64)
    check_installed()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "distutils Version classes", DeprecationWarning)
        cluster = importlib.import_module("sklearn_extra.cluster")
        model = cluster.KMedoids(
            n_clusters=k,
            metric="precomputed",
            method="pam",
            init="build",
            max_iter=300 if k > 1 else 0,  # a single medoid is found by the start alone
            random_state=seed,
        )
        return np.asarray(model.fit(diss).medoid_indices_, dtype=np.int64)
