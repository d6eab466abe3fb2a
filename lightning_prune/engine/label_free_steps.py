"""Training steps that need no labels: the dense network says what is right."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_prune.engine.calibration_set import mirrored
from lightning_prune.engine.kept_features import feature_loss, recorded
from lightning_prune.engine.output_agreement import distillation_loss
from lightning_prune.functional.schedule import learning_rate_factor
from lightning_prune.graph.forward_pass import call, untouched

_WARMUP = 20
_CLIP = 10.0
_HALF = 0.5
_LONG = 50
_FEATURES = 3.0


@dataclass(frozen=True)
class StepsTaken:
    """What came of label-free steps.

    Attributes:
        steps: Steps that were made.
        kept: After how many of them the weights are taken; 0: all steps were taken back.
        before: Score on what was held back before the first step.
        after: Score of the weights that are kept.
    """

    steps: int
    kept: int
    before: float
    after: float


def label_free_steps(
    module: nn.Module,
    dense: nn.Module,
    batches: Sequence[Any],
    score: Callable[[], float],
    *,
    features: Mapping[str, Tensor] | None = None,
    mirror: bool = False,
    steps: int = 300,
    lr: float = 5e-4,
    checks: int = 6,
    seed: int = 0,
    hold: Callable[[], None] | None = None,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> StepsTaken:
    """Train a pruned network towards the outputs of the dense one, and keep the best weights.

    AdamW without decay, some steps of warm-up, then a cosine; norms stay in eval mode. The loss is
    the module's ``distillation_loss(outputs, dense_outputs)``, or the relative error of the
    outputs, and three times that of some features (``feature_loss``). What pictures that were held
    back say decides: weights of the best score are kept, and where no step makes it better, those
    from before; where none of the first half does, the rest is left out.

    Args:
        module: The pruned network; it is changed.
        dense: The dense network.
        batches: Inputs, drawn one after the other in random order.
        score: Larger is better; of the module as it is when it is called.
        features: Layers whose outputs are compared too -> the channels of each that are kept.
        mirror: Whether every second batch, by chance, is mirrored.
        steps: Number of steps; 0: none.
        lr: Peak learning rate.
        checks: How often the score is asked for.
        seed: Of the order of the batches.
        hold: Called after each step: zeroes what is held at zero.
        progress: Shows how far it has come.

    Source: Liu, Zhang, Kuang, Zhou, Xue, Wang, Chen, Yang, Liao, Zhang, 2022, Practical network
    acceleration with tiny sets, CVPR, arXiv 2202.07861.
    """
    before = score() if steps else 0.0
    if not steps:
        return StepsTaken(0, 0, before, before)
    own = [p for p in module.parameters() if p.is_floating_point()]
    # A network that was read for inference alone has none that are trained.
    parameters = [p for p in own if p.requires_grad] or own
    best, best_score, kept = _copies(parameters), before, 0
    loss_of, kept_of = distillation_loss(module), features or {}
    random = torch.Generator().manual_seed(seed)
    warmup, every = min(_WARMUP, steps // 4), max(1, steps // max(1, checks))
    order: list[int] = []
    done = 0
    try:
        with (
            untouched(module), untouched(dense), torch.enable_grad(),
            recorded(module, kept_of) as given, recorded(dense, kept_of) as wished,
        ):  # fmt: skip
            module.eval()
            dense.eval()
            for parameter in parameters:
                parameter.requires_grad_(True)
            optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0)
            for step in progress(range(steps)):
                if not order:
                    order = torch.randperm(len(batches), generator=random).tolist()
                batch = batches[order.pop()]
                if mirror and bool(torch.rand((), generator=random) < _HALF):
                    batch = mirrored(batch)
                with torch.no_grad():
                    wanted = call(dense, batch)
                for group in optimizer.param_groups:
                    group["lr"] = lr * learning_rate_factor(step, steps, warmup, 0.0, "cosine")
                loss = loss_of(call(module, batch), wanted)
                if kept_of:
                    loss = loss + _FEATURES * feature_loss(given, wished, kept_of)
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(parameters, _CLIP)
                optimizer.step()
                if hold is not None:
                    hold()
                done = step + 1
                if done % every and done < steps:
                    continue
                now = score()
                if now > best_score:
                    best, best_score, kept = _copies(parameters), now, done
                elif not bool(loss.isfinite()) or (kept == 0 and _LONG <= steps <= 2 * done):
                    break  # lost, or half of them and never better than before
    finally:  # what an interruption leaves is no worse than what was there
        with torch.no_grad():
            for parameter, value in zip(parameters, best, strict=True):
                parameter.copy_(value)
                parameter.grad = None
    return StepsTaken(done, kept, before, best_score)


def _copies(parameters: Sequence[Tensor]) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in parameters]
