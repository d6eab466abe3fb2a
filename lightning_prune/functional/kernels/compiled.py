"""Numba compilation that works where nothing can be written to disk."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function, **options: Any) -> Function:
    """Compile a function on its first call, and keep the machine code on disk where possible.

    Numba looks for a writable folder beside the source file and in the user's cache, and raises
    when it finds none (a read-only container): there the function is compiled once per process.
    """
    try:
        return cast(Function, numba.njit(cache=True, **options)(function))
    except RuntimeError as error:
        if "cannot cache function" not in str(error):
            raise
        return cast(Function, numba.njit(**options)(function))
