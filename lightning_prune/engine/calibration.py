"""What keeps a model working where channels are masked: consumers are refitted, norms re-estimated.

Source: He, Zhang, Sun, 2017, Channel Pruning for Accelerating Very Deep Neural Networks, ICCV,
arXiv 1707.06168.
"""

from lightning_prune.engine.front_end import FrontEnd
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.plan import PruningPlan
from lightning_prune.surgery.compensate import compensate
from lightning_prune.surgery.recalibrate import recalibrate_norms


def refit_consumers(
    front: FrontEnd, groups: ChannelGroups, plan: PruningPlan, held: PruningPlan, images: int
) -> None:
    """Refit the consumers of channels to be masked: the rest reconstructs them.

    Args:
        front: Whose data and processes are used.
        groups: All groups of the model.
        plan: What will be masked.
        held: What is masked already.
        images: Training images over all processes.
    """
    front.agree_on_norms()
    with front.precision():
        compensate(
            front.model,
            groups,
            plan,
            lambda: front.batches(images),
            front.forward,
            held=held,
            total=front.total,
        )
    front.apply_masks()


def reestimate_norms(front: FrontEnd, images: int) -> None:
    """Estimate norm statistics again from about ``images`` training images of all processes."""
    with front.precision():
        recalibrate_norms(front.model, front.batches(images), front.forward)
    front.average_norms()
