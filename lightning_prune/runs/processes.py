"""What is known of processes on this machine."""

import os
from pathlib import Path


def is_alive(process: int) -> bool:
    """Return whether a process of this number runs on this machine."""
    if process <= 0 or os.name == "nt":  # there 0 is a signal
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to somebody else
        return True
    try:  # one that has ended and that nobody has asked for its end
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return True
