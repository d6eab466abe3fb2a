"""What stages did in an epoch, in a word or two."""

import lightning.pytorch as pl

from lightning_prune.callbacks.physical_pruner import PhysicalPruner
from lightning_prune.callbacks.protocol import CutWitness, EpochStage, Masker
from lightning_prune.runs.trainer.callbacks_of import callbacks_of


def epoch_words(trainer: pl.Trainer) -> str:
    """Return what stages did in the epoch that ends, such as ``mask to 74% of MACs, regularize``.

    Before the first mask it is ``dense``, unless a stage says more; behind the cut ``fine-tune``.
    Where no stage speaks at all, as in a dense run, there are no words.
    """
    stages = [callback for callback in callbacks_of(trainer) if isinstance(callback, EpochStage)]
    words: dict[bool, list[str]] = {True: [], False: []}
    for stage in stages:
        word = stage.doing(trainer.current_epoch)
        if word is not None:
            words[isinstance(stage, Masker | PhysicalPruner)].append(word)
    phase, others = words[True], words[False]
    if stages and not phase:
        cut = any(isinstance(one, CutWitness) and one.is_cut for one in callbacks_of(trainer))
        phase = ["fine-tune"] if cut else [] if others else ["dense"]
    return ", ".join([*phase, *others])
