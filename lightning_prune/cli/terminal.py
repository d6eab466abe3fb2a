"""The one way to the terminal: messages go around the bars, and into the log of the run."""

import contextlib
import logging
import os
import re
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from lightning_prune.errors import ConfigError

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_CI = ("CI", "CONTINUOUS_INTEGRATION", "BUILD_NUMBER")
_LIGHTNING_LOGS = tuple(
    f"lightning.{package}"
    for package in ("pytorch.utilities.rank_zero", "fabric.utilities.rank_zero")
)
# What the header of a run, or the line of one that is continued, says too, and what advertises.
_KNOWN = (
    "GPU available",
    "TPU available",
    "HPU available",
    "LOCAL_RANK: 0 - CUDA",
    "Restoring states from the checkpoint",
    "Restored all states from the checkpoint",
    "Found current_model_state in the checkpoint",
    "Loading `train_dataloader` to",
    "Tip:",
    "`Trainer.fit` stopped: `max_epochs=",
    "`weights_only` was not set",
)
_LONGEST = 10_000  # characters of a line that has not ended: bars never end theirs


class Terminal:
    """Take what is printed while it is open, line by line.

    Bars are cleared before a line is printed and drawn again below it. The lines, without colours
    and without what a carriage return has wiped away, are written to a log too. Where nobody reads
    any more (`| head`, a closed connection), printing ends and the program continues.

    Args:
        log: The log file; None: none is kept.
    """

    def __init__(self, log: Path | None = None) -> None:
        self._raw: tuple[TextIO, TextIO] = (sys.stdout, sys.stderr)
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._pending = {"": ["", ""], "log": ["", ""]}  # of output and errors: unfinished lines
        self._log: TextIO | None = None
        if log is not None:
            with contextlib.suppress(OSError):
                self._log = log.open("a", encoding="utf-8", errors="replace", buffering=1)

    def write(self, number: int, text: str, logged: bool = True) -> None:
        """Print to output (0) or errors (1)."""
        raw = self._raw[number]
        if os.getpid() != self._process:  # a forked worker: the locks may be held by nobody
            raw.write(text)
            return
        with self._lock:
            if logged:
                self._write_log(number, text)
            if not _bars(self._raw):
                text, self._pending[""][number] = self._pending[""][number] + text, ""
                _print(raw, text)
                return
            # Half a line with a bar behind it would be torn.
            whole, _, rest = (self._pending[""][number] + text).rpartition("\n")
            self._pending[""][number] = rest
            if whole or text.endswith("\n"):
                with tqdm.external_write_mode(file=self._raw[0]):
                    _print(raw, f"{whole}\n")

    def note_error(self, error: Exception) -> None:
        """Write to the log what ends the run: a refusal in its words, anything else in full."""
        plain = isinstance(error, ConfigError)
        lines = [f"{error}\n"] if plain else traceback.format_exception(error)
        with self._lock:
            self._write_log(1, "".join(lines))

    def close(self) -> None:
        """Print and log the lines that have not ended."""
        for number, raw in enumerate(self._raw):
            if self._pending[""][number]:
                _print(raw, self._pending[""][number])
            if self._pending["log"][number]:
                self._write_log(number, "\n")
        if self._log is not None:
            with contextlib.suppress(OSError):
                self._log.close()

    def _write_log(self, number: int, text: str) -> None:
        *lines, rest = (self._pending["log"][number] + text).split("\n")
        self._pending["log"][number] = rest[-_LONGEST:]
        if self._log is None or not lines:
            return
        plain = (_ESCAPES.sub("", line.rstrip("\r").rpartition("\r")[2]) for line in lines)
        try:
            self._log.write("".join(f"{line.rstrip()}\n" for line in plain))
        except (OSError, ValueError):  # a full disk does not end a training
            self._log = None


class _Stream:
    """Standard output or error while a terminal is open; all but writing is that of the real one.

    Args:
        terminal: The terminal.
        number: 0 for output, 1 for errors.
        logged: Whether what is written goes to the log.
    """

    def __init__(self, terminal: Terminal, number: int, logged: bool = True) -> None:
        self._terminal, self._number, self._logged = terminal, number, logged
        self._raw = terminal._raw[number]

    def write(self, text: str) -> int:
        self._terminal.write(self._number, text, self._logged)
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._raw.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)


class _ErrorHandler(logging.StreamHandler[Any]):
    """Write to what standard error is at the time."""

    @property
    def stream(self) -> Any:
        return sys.stderr

    @stream.setter
    def stream(self, value: Any) -> None:
        pass


@contextlib.contextmanager
def open_terminal(log: Path | None = None) -> Iterator[Terminal]:
    """Route what is printed, logged and warned of inside through a `Terminal`.

    Args:
        log: File to which the lines are appended.
    """
    terminal = Terminal(log)
    out, errors, form = sys.stdout, sys.stderr, warnings.formatwarning
    swapped = _swap_handlers(terminal)
    quiet = [logging.getLogger(name) for name in _LIGHTNING_LOGS]
    for logger in quiet:
        logger.addFilter(_is_news)
    sys.stdout, sys.stderr = _Stream(terminal, 0), _Stream(terminal, 1)
    warnings.formatwarning = _plain_warning
    try:
        with _bars_of(terminal):
            yield terminal
    finally:
        sys.stdout, sys.stderr, warnings.formatwarning = out, errors, form
        for logger in quiet:
            logger.removeFilter(_is_news)
        for handler, stream in swapped:
            handler.setStream(stream)
        terminal.close()


def _is_news(record: logging.LogRecord) -> bool:
    """Return whether a message of Lightning says more than the header does, or is of use."""
    text = record.getMessage()
    return not (record.levelno <= logging.INFO and text.lstrip("💡 ").startswith(_KNOWN))


def shows_bars() -> bool:
    """Return whether bars have a place: not in a file, a pipe, CI, or a terminal that is dumb."""
    if any(os.environ.get(name, "").lower() not in ("", "0", "false") for name in _CI):
        return False
    return sys.stdout.isatty() and os.environ.get("TERM") != "dumb"


@contextlib.contextmanager
def _bars_of(terminal: Terminal) -> Iterator[None]:
    """Draw bars, whoever makes them, beside the streams; none where nobody looks."""
    make = tqdm.__init__

    def init(self: Any, *args: Any, **options: Any) -> None:
        file = options.get("file") or sys.stderr
        options["file"] = file._raw if isinstance(file, _Stream) else file
        if options["file"] in terminal._raw and not shows_bars():
            options["disable"] = True
        make(self, *args, **options)

    tqdm.__init__ = init
    try:
        yield
    finally:
        tqdm.__init__ = make


def log_file() -> Path | None:
    """Return the file of the log that Hydra has set up; None where it keeps none."""
    files = [h for h in logging.getLogger().handlers if isinstance(h, logging.FileHandler)]
    return Path(files[0].baseFilename) if files else None


def _bars(streams: tuple[TextIO, TextIO]) -> bool:
    return any(bar.fp == stream for bar in getattr(tqdm, "_instances", ()) for stream in streams)


def _print(raw: TextIO, text: str) -> None:
    try:
        try:
            raw.write(text)
        except UnicodeEncodeError:
            known = raw.encoding or "ascii"
            raw.write(text.encode(known, "replace").decode(known))
        raw.flush()
    except (BrokenPipeError, OSError):
        _mute(raw)


def _mute(raw: TextIO) -> None:
    """Send what a stream is given from now on to nowhere: its reader has gone."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, raw.fileno())
        os.close(nowhere)


def _swap_handlers(terminal: Terminal) -> list[tuple[Any, Any]]:
    """Lead log handlers that write to the terminal through it; return what they wrote to."""
    swapped: list[tuple[Any, Any]] = []
    root = logging.getLogger()
    for name in ("", "lightning", "lightning.fabric", "lightning.pytorch"):
        logger = logging.getLogger(name)
        if name.count(".") and logger.propagate and not logger.handlers:
            # As Lightning has it where nobody has set up logging: lines without date and level.
            logger.addHandler(_ErrorHandler())
            logger.propagate = False
        for handler in logger.handlers:
            stream = getattr(handler, "stream", None)
            if type(handler) is logging.StreamHandler and stream in terminal._raw:
                number = terminal._raw.index(stream)
                # What reaches the root is in its log file already.
                logged = logger is not root or log_file() is None
                swapped.append((handler, stream))
                handler.setStream(_Stream(terminal, number, logged))
    return swapped


def _plain_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """Return a warning as a line: users have no use for the place where it was written."""
    if issubclass(category, UserWarning):
        return f"warning: {message}\n"
    return f"warning: {category.__name__} of {filename}:{lineno}: {message}\n"
