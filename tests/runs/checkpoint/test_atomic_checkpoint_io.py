import datetime
import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.plugins.io import AsyncCheckpointIO
from torch import nn

from lightning_prune.files.checkpoint_error import CheckpointError
from lightning_prune.files.part_file import PartFile
from lightning_prune.files.sidecar import Sidecar
from lightning_prune.runs.checkpoint.atomic_checkpoint_io import AtomicCheckpointIO
from lightning_prune.runs.checkpoint.newest_checkpoint import newest_checkpoint
from tests.callbacks.classifiers import Classifier, trainer


def content(value: float, step: int = 1, width: int = 64) -> dict:
    return {
        "state_dict": {"weight": torch.full((width, width), value)},
        "epoch": 0,
        "global_step": step,
        "loops": {},
        "optimizer_states": [],
        "lr_schedulers": [],
    }


def value_of(loaded: dict) -> float:
    weight = loaded["state_dict"]["weight"]
    assert weight.unique().numel() == 1
    return float(weight[0, 0])


def sha256sum(folder: Path, name: str) -> bool:
    done = subprocess.run(["sha256sum", "-c", name], cwd=folder, capture_output=True)
    return done.returncode == 0


@pytest.fixture
def io() -> AtomicCheckpointIO:
    return AtomicCheckpointIO()


def test_what_is_saved_loads_and_sha256sum_agrees(io: AtomicCheckpointIO, tmp_path: Path):
    path = tmp_path / "new" / "a.ckpt"
    for value in (1.0, 2.0):
        io.save_checkpoint(content(value), path)
        assert value_of(io.load_checkpoint(path)) == value
        assert sha256sum(path.parent, "a.ckpt.sha256")
        assert sorted(os.listdir(path.parent)) == ["a.ckpt", "a.ckpt.sha256"]
    io.remove_checkpoint(path)
    assert os.listdir(path.parent) == []
    io.remove_checkpoint(path)


def test_without_digest_an_old_sidecar_goes(tmp_path: Path):
    path = tmp_path / "a.ckpt"
    AtomicCheckpointIO().save_checkpoint(content(1.0), path)
    AtomicCheckpointIO(digest=False).save_checkpoint(content(2.0), path)
    assert os.listdir(tmp_path) == ["a.ckpt"]
    assert value_of(AtomicCheckpointIO().load_checkpoint(path)) == 2.0


STEPS = [(os, "fsync"), (os, "replace"), (os, "close"), (os, "open"), (Path, "unlink")]
EVERY = 12  # of the writes, which are many and alike


def every_moment(monkeypatch: pytest.MonkeyPatch, folder: Path, copies: Path) -> list[Path]:
    """Copy a folder before and after each step of a save: what a SIGKILL there would leave."""
    taken: list[Path] = []
    calls = 0

    def watch(owner, name):
        original = getattr(owner, name)

        def step(*arguments, **options):
            nonlocal calls
            calls += name == "write"
            if name == "write" and calls % EVERY:
                return original(*arguments, **options)
            for moment in ("before", "after"):
                if moment == "after":
                    result = original(*arguments, **options)
                place = copies / f"{len(taken):03d}_{moment}_{name}"
                shutil.copytree(folder, place, symlinks=True)
                taken.append(place)
            return result

        monkeypatch.setattr(owner, name, step)

    for owner, name in [*STEPS[:3], (PartFile, "write")]:
        watch(owner, name)
    return taken


@pytest.mark.parametrize("start", ["nothing", "digest", "no digest", "two lines", "link"])
def test_a_kill_at_any_moment_leaves_the_old_or_the_new(start, tmp_path, monkeypatch):
    folder, path = tmp_path / "run", tmp_path / "run" / "last.ckpt"
    folder.mkdir()
    io = AtomicCheckpointIO()
    if start == "link":
        io.save_checkpoint(content(1.0), folder / "best.ckpt")
        path.symlink_to("best.ckpt")
    elif start != "nothing":
        AtomicCheckpointIO(digest=start != "no digest").save_checkpoint(content(1.0), path)
    if start == "two lines":
        sidecar = folder / "last.ckpt.sha256"
        sidecar.write_text(f"{'0' * 64}  last.ckpt\n" + sidecar.read_text())
    with monkeypatch.context() as patch:
        taken = every_moment(patch, folder, tmp_path / "copies")
        io.save_checkpoint(content(2.0), path)
    assert len(taken) >= 20
    seen = []
    for place in taken:
        if not (place / "last.ckpt").exists():
            assert start == "nothing"
            seen.append(0.0)
            continue
        seen.append(value_of(io.load_checkpoint(place / "last.ckpt")))
        assert newest_checkpoint(place) is not None
        io.save_checkpoint(content(3.0), place / "last.ckpt")  # the next run clears up
        left = set(os.listdir(place)) - {"best.ckpt", "best.ckpt.sha256"}
        assert left == {"last.ckpt", "last.ckpt.sha256"}
        assert sha256sum(place, "last.ckpt.sha256")
    assert seen == sorted(seen)
    assert {seen[0], seen[-1]} == {0.0 if start == "nothing" else 1.0, 2.0}
    assert value_of(io.load_checkpoint(path)) == 2.0
    if start == "link":
        assert value_of(io.load_checkpoint(folder / "best.ckpt")) == 1.0


@pytest.mark.parametrize("which", range(len(STEPS)))
def test_an_error_in_any_step_comes_out_or_does_not_matter(which, tmp_path, monkeypatch):
    owner, name = STEPS[which]
    path, io = tmp_path / "a.ckpt", AtomicCheckpointIO()
    io.save_checkpoint(content(1.0), path)
    original, calls, fatal = getattr(owner, name), 0, -1

    def step(*arguments, **options):
        nonlocal calls
        calls += 1
        if calls == fatal + 1:
            raise PermissionError(errno.EACCES, "no")
        return original(*arguments, **options)

    def save_with_the_error() -> None:
        nonlocal calls
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, step)
            calls = 0
            io.save_checkpoint(content(2.0), path)

    save_with_the_error()
    assert calls >= 2  # of each kind a save needs several
    for fatal in range(calls):  # noqa: B007 -- `step` reads it
        try:
            save_with_the_error()
            allowed = [2.0]  # it was about something older
        except PermissionError:
            allowed = [1.0, 2.0]
        assert value_of(io.load_checkpoint(path)) in allowed
        io.save_checkpoint(content(1.0), path)
        # An unlink that is not allowed leaves its file; every later save tries again.
        assert name == "unlink" or len(os.listdir(tmp_path)) == 2


def test_parts_of_the_dead_go_and_those_of_the_living_stay(io, tmp_path):
    path = tmp_path / "a.ckpt"
    dead = [tmp_path / f"{name}.{'0' * 32}.part" for name in ("a.ckpt", "a.ckpt.sha256")]
    others = [tmp_path / f"b.ckpt.{'0' * 32}.part", tmp_path / "a.ckpt.notes.part"]
    for file in [*dead, *others]:
        file.write_bytes(b"torn")
    with PartFile(path) as living:
        living.write(b"still at it")
        io.save_checkpoint(content(1.0), path)
        assert living.path.exists()
        assert not any(file.exists() for file in dead)
        assert all(file.exists() for file in others)
    assert not living.path.exists()


def test_the_part_of_a_killed_process_is_cleared(io, tmp_path):
    code = (
        "import sys, time; from pathlib import Path\n"
        "from lightning_prune.files.part_file import PartFile\n"
        "with PartFile(Path(sys.argv[1])) as part:\n"
        "    part.write(b'x'); part.sync(); print('ready', flush=True); time.sleep(600)\n"
    )
    path = tmp_path / "a.ckpt"
    child = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE)
    try:
        assert child.stdout.readline() == b"ready\n"
        io.save_checkpoint(content(1.0), path)
        assert len(list(tmp_path.glob("*.part"))) == 1
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate()
    io.save_checkpoint(content(2.0), path)
    assert list(tmp_path.glob("*.part")) == []


def test_the_error_names_what_is_wrong_and_where_to_go_on(io, tmp_path):
    good, bad = tmp_path / "good.ckpt", tmp_path / "bad.ckpt"
    io.save_checkpoint(content(1.0, step=5), good)
    io.save_checkpoint(content(2.0, step=9), bad)
    whole = bad.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for data, reason in [
        (bytes(flipped), r"altered or torn: its content does not match bad\.ckpt\.sha256"),
        (whole[:-100], "damaged or torn"),
        (b"", "an empty file: damaged or torn"),
    ]:
        bad.write_bytes(data)
        with pytest.raises(CheckpointError, match=rf"bad\.ckpt: .*{reason}.*is .*good\.ckpt"):
            io.load_checkpoint(bad)
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*absent\.ckpt.*good\.ckpt"):
        io.load_checkpoint(tmp_path / "absent.ckpt")
    good.unlink()
    with pytest.raises(CheckpointError, match="no other intact checkpoint"):
        io.load_checkpoint(bad)
    torch.save([1], bad)
    (tmp_path / "bad.ckpt.sha256").unlink()
    with pytest.raises(CheckpointError, match="no Lightning checkpoint"):
        io.load_checkpoint(bad)


def test_plain_data_only(io, tmp_path):
    io.save_checkpoint(content(1.0), tmp_path / "a.ckpt")
    for allowed in (None, True):
        io.load_checkpoint(tmp_path / "a.ckpt", weights_only=allowed)
    with pytest.raises(ValueError, match="would execute what is pickled"):
        io.load_checkpoint(tmp_path / "a.ckpt", weights_only=False)
    torch.save(content(1.0) | {"object": Path("x")}, tmp_path / "b.ckpt")
    with pytest.raises(CheckpointError, match=r"pickled objects \(pathlib"):
        io.load_checkpoint(tmp_path / "b.ckpt")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("step", ["write", "sync", "commit"])
def test_a_full_disk_keeps_the_old_file(io, tmp_path, monkeypatch, code, step):
    path = tmp_path / "a.ckpt"
    io.save_checkpoint(content(1.0), path)

    def full(*_):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        owner = (os, "fsync") if step == "sync" else (PartFile, step)
        if step == "write":  # as in the kernel: torch sees the error of a file below it
            patch.setattr(PartFile, "__enter__", broken_enter(code))
        else:
            patch.setattr(*owner, full)
        with pytest.warns(UserWarning, match=r"a\.ckpt was not written, the earlier file stays"):
            io.save_checkpoint(content(2.0), path)
    assert value_of(io.load_checkpoint(path)) == 1.0
    assert sorted(os.listdir(tmp_path)) == ["a.ckpt", "a.ckpt.sha256"]


def broken_enter(code):
    original = PartFile.__enter__

    class Full:
        def __init__(self, file):
            self.file = file

        def write(self, data):
            if self.file.tell() > 5000:
                raise OSError(code, os.strerror(code))
            return self.file.write(data)

        def __getattr__(self, name):
            return getattr(self.file, name)

    def enter(self):
        original(self)
        self._file = Full(self._file)
        return self

    return enter


def test_the_warning_says_how_much_is_missing(io, tmp_path, monkeypatch):
    monkeypatch.setattr(PartFile, "__enter__", broken_enter(errno.ENOSPC))
    free = type("Usage", (), {"free": 3_000_000})()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    shared = torch.zeros(10**6)
    checkpoint = content(1.0) | {"state_dict": {"a": shared, "b": shared[:10]}}
    with pytest.warns(UserWarning, match=r"needs about 4\.0 MB .* 3\.0 MB are free"):
        io.save_checkpoint(checkpoint, tmp_path / "x" / "a.ckpt")


def test_a_real_size_limit(io, tmp_path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, hard))  # Python ignores SIGXFSZ
    try:
        with pytest.warns(UserWarning, match=r"File too large: the checkpoint needs about 4\.0 MB"):
            io.save_checkpoint({"a": torch.zeros(10**6)}, tmp_path / "a.ckpt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == []


def test_other_errors_are_raised(io, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"exists|directory"):
        io.save_checkpoint(content(1.0), tmp_path / "file" / "a.ckpt")
    with pytest.raises(TypeError, match="storage_options"):
        io.save_checkpoint(content(1.0), tmp_path / "a.ckpt", storage_options={})


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_diverged_weights_do_not_replace_good_ones(io, tmp_path, bad):
    path = tmp_path / "a.ckpt"
    io.save_checkpoint(content(1.0), path)
    diverged = content(2.0, step=7)
    diverged["state_dict"]["weight"][3, 4] = bad
    with pytest.warns(UserWarning, match=r"at step 7 NaN or infinity is in weight: "):
        io.save_checkpoint(diverged, path)
    assert value_of(io.load_checkpoint(path)) == 1.0
    AtomicCheckpointIO(refuse_non_finite=False).save_checkpoint(diverged, path)
    assert not io.load_checkpoint(path)["state_dict"]["weight"].isfinite().all()


def test_masks_of_infinity_are_no_divergence(io, tmp_path):
    state = {
        "mask": torch.full((4, 4), float("-inf")).triu(1),
        "lowest": torch.tensor(float("inf")),
        "small": torch.ones(3, dtype=torch.float8_e4m3fn),
        "count": torch.tensor(3),
        "extra": {"a": 1},
    }
    io.save_checkpoint(content(1.0) | {"state_dict": state}, tmp_path / "a.ckpt")
    assert torch.equal(io.load_checkpoint(tmp_path / "a.ckpt")["state_dict"]["mask"], state["mask"])


def test_what_was_to_be_replaced_is_kept_until_it_was(io, tmp_path, monkeypatch):
    names = [tmp_path / f"{n}.ckpt" for n in range(4)]
    io.save_checkpoint(content(0.0), names[0])
    bad = content(float("nan"))
    for n in (1, 2):
        with pytest.warns(UserWarning, match="earlier checkpoints stay"):
            io.save_checkpoint(bad, names[n])
        io.remove_checkpoint(names[n - 1])  # as ModelCheckpoint does after every save
        assert value_of(io.load_checkpoint(names[0])) == 0.0
        with pytest.raises(FileNotFoundError, match=r"0\.ckpt, which was kept"):
            io.load_checkpoint(names[n])
    io.save_checkpoint(content(3.0), names[3])
    io.remove_checkpoint(names[2])
    assert sorted(os.listdir(tmp_path)) == ["3.ckpt", "3.ckpt.sha256"]


class Breaks(Callback):
    """Puts NaN into a weight after an epoch."""

    def __init__(self, epoch: int):
        self.epoch = epoch

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == self.epoch:
            with torch.no_grad():
                pl_module.net.head.weight.fill_(float("nan"))


def test_a_run_that_diverges_keeps_its_best_and_last(tmp_path):
    best = ModelCheckpoint(tmp_path, "best-{epoch}", monitor="epoch", mode="max")
    last = ModelCheckpoint(tmp_path, "last", enable_version_counter=False)
    fit = trainer(
        tmp_path, [Breaks(2), best, last], 4, enable_checkpointing=True,
        plugins=[AtomicCheckpointIO()],
    )  # fmt: skip
    with pytest.warns(UserWarning, match="was not written, .* NaN or infinity is in net"):
        fit.fit(Classifier())
    names = {"best-epoch=1.ckpt", "last.ckpt"}
    assert set(os.listdir(tmp_path)) == names | {f"{name}.sha256" for name in names}
    found = newest_checkpoint(tmp_path)
    assert found is not None
    assert torch.load(found, weights_only=True)["epoch"] == 1


def run(folder: Path, epochs: int, plugin, ckpt_path=None, **options) -> pl.LightningModule:
    last = ModelCheckpoint(folder, "last", enable_version_counter=False)
    model = Classifier()
    given = {"enable_checkpointing": True, "plugins": [plugin], **options}
    trainer(folder, [last], epochs, **given).fit(model, ckpt_path=ckpt_path)
    return model


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* is not empty")
@pytest.mark.parametrize("wrap", [lambda io: io, AsyncCheckpointIO], ids=["plain", "async"])
def test_resuming_through_the_plugin_equals_a_run_without_it(wrap, tmp_path):
    whole = run(tmp_path / "a", 3, None, plugins=[])
    run(tmp_path / "b", 2, wrap(AtomicCheckpointIO()))
    assert sha256sum(tmp_path / "b", "last.ckpt.sha256")
    path = str(tmp_path / "b" / "last.ckpt")
    resumed = run(tmp_path / "b", 3, wrap(AtomicCheckpointIO()), path)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_save_last_as_a_link_and_best(tmp_path):
    best = ModelCheckpoint(
        tmp_path, "best-{epoch}", monitor="val/accuracy", mode="max", save_last="link", save_top_k=2
    )
    fit = trainer(tmp_path, [best], 3, enable_checkpointing=True, plugins=[AtomicCheckpointIO()])
    fit.fit(Classifier())
    assert (tmp_path / "last.ckpt").is_symlink()
    loaded = AtomicCheckpointIO().load_checkpoint(tmp_path / "last.ckpt")
    assert loaded["epoch"] == 2
    fit.test(ckpt_path="best", verbose=False)


def test_no_second_copy_of_the_model_is_made(io, tmp_path):
    pieces = []
    original = PartFile.write

    def watch(self, data):
        pieces.append(len(data))
        return original(self, data)

    many = {f"t{n}": torch.rand(1000) for n in range(20)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PartFile, "write", watch)
        io.save_checkpoint(content(1.0) | {"state_dict": many}, tmp_path / "a.ckpt")
    assert max(pieces) < 10_000
    assert sum(pieces) > 80_000


def test_values_are_stored_plainly_and_read_back(io, tmp_path):
    given = {"lr": np.float64(0.5), "path": Path("a/b"), "sizes": [np.int64(3)]}
    io.save_checkpoint(content(1.0) | {"hyper_parameters": given}, tmp_path / "a.ckpt")
    read = io.load_checkpoint(tmp_path / "a.ckpt")["hyper_parameters"]
    assert read == {"lr": 0.5, "path": "a/b", "sizes": [3]}
    assert [type(value) for value in (*read.values(), *read["sizes"])] == [float, str, list, int]


def test_a_value_that_changes_its_kind_is_said_once(io, tmp_path):
    given = content(1.0) | {"hyper_parameters": {"until": datetime.date(2026, 1, 2)}}
    with pytest.warns(UserWarning, match=r"hyper_parameters\.until \(date -> str\)"):
        io.save_checkpoint(given, tmp_path / "a.ckpt")
    io.save_checkpoint(given, tmp_path / "b.ckpt")
    assert io.load_checkpoint(tmp_path / "b.ckpt")["hyper_parameters"] == {"until": "2026-01-02"}


def test_the_first_save_refuses_what_is_not_plain_and_loses_nothing_else(io, tmp_path):
    given = content(1.0) | {"hyper_parameters": {"loss": nn.MSELoss(), "lr": 0.1}}
    with pytest.raises(ValueError, match=r"hyper_parameters\.loss \(MSELoss\).*ignore=\['loss'\]"):
        io.save_checkpoint(given, tmp_path / "a.ckpt")
    read = io.load_checkpoint(tmp_path / "a.ckpt")
    assert read["hyper_parameters"] == {"lr": 0.1}
    assert torch.equal(read["state_dict"]["weight"], given["state_dict"]["weight"])


def test_later_saves_go_on_without_it_and_say_so_once(io, tmp_path):
    io.save_checkpoint(content(1.0), tmp_path / "a.ckpt")
    given = content(2.0) | {"callbacks": {"Mine": {"seen": [1, print]}}}
    with pytest.warns(UserWarning, match=r"callbacks\.Mine\.seen\[1\] \(builtin_function"):
        io.save_checkpoint(given, tmp_path / "a.ckpt")
    io.save_checkpoint(given, tmp_path / "a.ckpt")
    assert io.load_checkpoint(tmp_path / "a.ckpt")["callbacks"] == {"Mine": {"seen": [1]}}


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_a_tensor_that_cannot_be_read_is_named_at_the_first_save(io, tmp_path):
    scale = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)
    given = {"state_dict": {"weight": torch.ones(1), "scale": scale}}
    with pytest.raises(ValueError, match=r"state_dict\.scale"):
        io.save_checkpoint(given, tmp_path / "a.ckpt")


def test_old_files_that_the_disk_does_not_give_end_no_training(io, tmp_path, monkeypatch):
    io.save_checkpoint(content(1.0), tmp_path / "a.ckpt")
    io.save_checkpoint(content(1.0), tmp_path / "old.ckpt")

    def stale(*_: object, **__: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    with monkeypatch.context() as disk:
        disk.setattr(Path, "iterdir", stale)
        disk.setattr(Sidecar, "current", stale)
        disk.setattr(Path, "unlink", stale)
        disk.setattr(PartFile, "__exit__", lambda part, *_: part._close())
        io.save_checkpoint(content(2.0), tmp_path / "a.ckpt")
        with pytest.warns(UserWarning, match=r"old\.ckpt could not be removed .*Stale file"):
            io.remove_checkpoint(tmp_path / "old.ckpt")
    assert value_of(io.load_checkpoint(tmp_path / "a.ckpt")) == 2.0
