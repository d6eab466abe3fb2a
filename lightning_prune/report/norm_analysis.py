"""From which epoch of a regularization run the pruning phase can start."""

from typing import Any

from lightning_prune.graph.macs import MacModel
from lightning_prune.report.norm_history import NormHistory


def norm_analysis(
    history: NormHistory,
    threshold: float = 0.1,
    wanted: float = 0.3,
    macs: MacModel | None = None,
) -> dict[str, Any]:
    """Count the low channels of every epoch, and name the first epoch with enough of them.

    Args:
        history: The norms over the epochs.
        threshold: A channel is low below this fraction, in (0, 1), of its group's largest norm.
        wanted: Fraction of the channels, in (0, 1), that must be low for pruning to start.
        macs: The dense MACs; with them, the MACs that would remain without the low channels (one
            channel of a group stays).

    Returns:
        Plain data for JSON: ``threshold``, ``wanted``, ``channels``, ``start`` (the first epoch
        that has enough, or None), ``epochs`` (rows of ``epoch``, ``low_channels``, ``mean_norm``,
        ``macs``: fractions of the channels and of the dense MACs) and ``groups`` (name ->
        ``channels`` and, per epoch, ``low_channels`` and ``mean_norm``).

    Raises:
        ValueError: a fraction is outside (0, 1).

    >>> import torch
    >>> norms = torch.tensor([[1.0, 1.0], [1.0, 0.05], [0.8, 0.01]])
    >>> found = norm_analysis(NormHistory((0, 4, 9), {"conv": norms}), wanted=0.5)
    >>> found["start"], found["groups"]["conv"]["low_channels"]
    (4, [0.0, 0.5, 0.5])
    """
    if not 0 < wanted < 1:
        raise ValueError(
            f"wanted={wanted} is outside (0, 1): pass the fraction of channels that must be low"
        )
    low = history.low(threshold)
    fractions, means = history.low_fraction(threshold), history.mean_norm()
    rows = []
    for place, epoch in enumerate(history.epochs):
        remaining = None
        if macs is not None and macs.total:
            widths = {name: max(1, int((~flags[place]).sum())) for name, flags in low.items()}
            remaining = macs.remaining(widths) / macs.total
        rows.append(
            {
                "epoch": epoch,
                "low_channels": fractions[place],
                "mean_norm": means[place],
                "macs": remaining,
            }
        )
    groups = {
        name: {
            "channels": norms.shape[1],
            "low_channels": low[name].double().mean(1).tolist(),
            "mean_norm": norms.double().mean(1).tolist(),
        }
        for name, norms in history.norms.items()
    }
    return {
        "threshold": threshold,
        "wanted": wanted,
        "channels": history.channels,
        "start": next(
            (e for e, f in zip(history.epochs, fractions, strict=True) if f >= wanted), None
        ),
        "epochs": rows,
        "groups": groups,
    }
