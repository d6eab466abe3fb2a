"""Keep to themselves what other libraries log of their inner workings."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_logs(*names: str) -> Iterator[None]:
    """Raise the level of some loggers to errors while it is open.

    Args:
        names: Names of the loggers; "": the root.

    >>> with quiet_logs("onnx_ir"):
    ...     logging.getLogger("onnx_ir.passes").isEnabledFor(logging.INFO)
    False
    """
    logs = [logging.getLogger(name) for name in names]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)
