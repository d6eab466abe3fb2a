"""The shipped configs as the package `lightning_prune.conf`, also in a checkout.

A wheel has a folder of this name, which Python takes instead of this file. In a checkout the
folder is beside the package; `hydra.searchpath=[pkg://lightning_prune.conf]` finds it there too.
"""

import importlib.util
from pathlib import Path

_FOLDER = Path(__file__).resolve().parent.parent / "conf"
__path__ = [str(_FOLDER)]
_found = importlib.util.spec_from_file_location(
    __name__, _FOLDER / "__init__.py", submodule_search_locations=__path__
)
assert _found is not None  # a name that ends with .py has a loader
# Resources are looked for where the loader of the specification says.
__spec__ = _found
