"""Channel usage of any layers of a live model, watched through hooks."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils.hooks import RemovableHandle

from lightning_prune.arguments import Count, UsageThreshold
from lightning_prune.graph.layer_kinds import output_dims, width_of
from lightning_prune.graph.names import modules_by_name
from lightning_prune.graph.outputs import LayerOutput
from lightning_prune.graph.removed_rows import tensor_name
from lightning_prune.observe.usage_counter import UsageCounter, usage_stats
from lightning_prune.surgery.cut import PrunedChannels
from lightning_prune.validation import validated


class ChannelUsage:
    """Counts for some layers in how many training passes each of their channels was used.

    Used: the mean magnitude of the layer's output, after its norm and activation, exceeds the
    threshold. Only passes in training mode count. While it is stopped, the model has no hook.

    Args:
        model: The live model.
        outputs: Layer -> where its output appears, from ``layer_outputs``; those to track.
        threshold: Mean magnitude above which a channel is used, at least 0.
        every_n: Of each layer every n-th training pass is looked at, the first among them.

    Attributes:
        counters: Layer -> its ``UsageCounter``.

    Raises:
        ValueError: the threshold is negative, or ``every_n`` is below 1.

    Source: the project's CSP_Reset guide.

    >>> from lightning_prune.graph.outputs import layer_outputs
    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> _ = nn.init.ones_(net[0].weight), nn.init.constant_(net[0].bias, 0.0)
    >>> net[0].bias.data[1] = -100.0
    >>> usage = ChannelUsage(net, layer_outputs(net, torch.ones(4, 2)))
    >>> with usage:
    ...     _ = net(torch.ones(4, 2))
    >>> usage.stats()["0"]["used_channel_indices"]
    [0, 2]
    """

    @validated
    def __init__(
        self,
        model: nn.Module,
        outputs: Mapping[str, LayerOutput],
        threshold: UsageThreshold = 1e-6,
        every_n: Count = 1,
    ) -> None:
        modules = modules_by_name(model)
        self.threshold = threshold
        self.every_n = every_n
        self.outputs = dict(outputs)
        self.counters = {
            name: UsageCounter(width_of(modules[name]), threshold) for name in self.outputs
        }
        self._model = model
        self._passes = dict.fromkeys(self.outputs, 0)
        self._hooks: list[tuple[nn.Module, Callable[..., None]]] = []
        self._handles: list[RemovableHandle] = []

    # --- on and off -------------------------------------------------------------------------

    @property
    def tracks(self) -> bool:
        """Return whether forward passes are being counted."""
        return bool(self._handles)

    def start(self) -> None:
        """Begin to count, or continue."""
        self.stop()
        if not self._hooks:  # made once: a callback starts and stops at every batch
            _forget_compiled(self._model)
            modules = modules_by_name(self._model)
            for name, output in self.outputs.items():
                watched = modules[output.watched]
                self._hooks.append((watched, self._hook(modules[name], watched, output)))
        self._handles = [watched.register_forward_hook(hook) for watched, hook in self._hooks]

    def stop(self) -> None:
        """Remove all hooks; the counts stay."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def __enter__(self) -> "ChannelUsage":
        self.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.stop()

    def _hook(
        self, layer: nn.Module, watched: nn.Module, output: LayerOutput
    ) -> Callable[..., None]:
        name, counter = output.layer, self.counters[output.layer]
        dim = 1 - layer.weight.ndim if isinstance(layer, _ConvNd) else -1
        activation, every_n, passes = output.activation, self.every_n, self._passes

        def count(module: nn.Module, _inputs: Any, values: Tensor) -> None:
            # The layer's mode: a norm alone may be in training mode to estimate its statistics.
            # A copy of the model has these very hooks, and is not what is counted.
            if not layer.training or module is not watched:
                return
            if passes[name] % every_n == 0:
                counter.update(values, dim, activation)
            passes[name] += 1

        return count

    def layer_and_norm(self, model: nn.Module, name: str) -> tuple[nn.Module, nn.Module | None]:
        """Return a tracked layer and the norm of its output, of the model or a copy of it."""
        modules, norm = modules_by_name(model), self.outputs[name].norm
        return modules[name], None if norm is None else modules[norm]

    # --- what was seen ----------------------------------------------------------------------

    def stats(self, total: Callable[[Tensor], Tensor] | None = None) -> dict[str, dict[str, Any]]:
        """Return ``usage_stats`` of every layer, and ``forwards``, the passes that were counted.

        Args:
            total: Sums a tensor over all processes; all of them must call this then. None: only
                what this process has seen.
        """
        counts, forwards = self.read(total)
        return {name: {**usage_stats(counts[name]), "forwards": forwards[name]} for name in counts}

    def read(
        self, total: Callable[[Tensor], Tensor] | None = None
    ) -> tuple[dict[str, Tensor], dict[str, int]]:
        """Return counts (on the CPU) and counted passes of every layer; see ``stats``."""
        counters = self.counters
        if not counters:
            return {}, {}
        device = next(iter(counters.values())).counts.device
        parts = [c.counts.to(device) for c in counters.values()]
        forwards = torch.tensor([c.forwards for c in counters.values()], device=device)
        # One sum for all layers: each one of its own would be a message between the processes.
        whole = torch.cat([*parts, forwards])
        whole = (whole if total is None else total(whole)).cpu()
        *split, passes = whole.split([*(len(part) for part in parts), len(parts)])
        counts = {name: part.clone() for name, part in zip(counters, split, strict=True)}
        return counts, dict(zip(counters, passes.tolist(), strict=True))

    def clear(self, layers: Iterable[str] | None = None) -> None:
        """Clear the counts of some layers; None: of all."""
        for name in self.counters if layers is None else layers:
            self.counters[name].clear()

    def after_cut(
        self, model: nn.Module, outputs: Mapping[str, LayerOutput], pruned: PrunedChannels
    ) -> "ChannelUsage":
        """Return the usage of the model after a cut of channels, with the counts of those left.

        Args:
            model: The cut model.
            outputs: Its ``layer_outputs``; layers that it lacks are tracked no longer.
            pruned: What ``cut_channels`` returned.
        """
        tracked, modules = self.tracks, modules_by_name(model)
        self.stop()
        kept = {name: outputs[name] for name in self.outputs if name in outputs}
        after = ChannelUsage(model, kept, self.threshold, self.every_n)
        for name in kept:
            counter = self.counters[name]
            rows = kept_rows(modules[name], name, pruned)
            if rows is not None:
                counter.keep(rows)
            after.counters[name] = counter
            after._passes[name] = self._passes[name]
        if tracked:
            after.start()
        return after

    def state_dict(self, total: Callable[[Tensor], Tensor] | None = None) -> dict[str, Any]:
        """Return the counts as plain data; see ``stats`` for ``total``."""
        counts, forwards = self.read(total)
        return {"counts": counts, "forwards": forwards, "passes": dict(self._passes)}

    def load_state_dict(self, state: Mapping[str, Any], first: bool = True) -> None:
        """Restore counts.

        Args:
            state: What ``state_dict`` returned; layers that are not tracked are passed over.
            first: Whether the counts go to this process: sums over all belong to one of them.
        """
        for name, counter in self.counters.items():
            known = state["counts"].get(name)
            if known is None or len(known) != counter.channels:
                continue
            self._passes[name] = int(state["passes"][name])
            if first:
                counter.counts = known.clone()
                counter.forwards = int(state["forwards"][name])


def kept_rows(layer: nn.Module, name: str, pruned: PrunedChannels) -> Tensor | None:
    """Return the positions of a layer's output channels that a cut kept; None: all of them."""
    replaced = pruned.parameters.get(tensor_name(name, "weight"))
    if replaced is None:
        return None
    return replaced.kept.get(dict(output_dims(layer))["weight"])


def _forget_compiled(model: nn.Module) -> None:
    """Compile compiled modules again, with hooks: PyTorch does not look for new ones.

    Nor does it where another model of the same class was compiled before: that one's hooks would
    be called.
    """
    if any(hasattr(module, "_orig_mod") for module in model.modules()):
        torch.compiler.reset()
