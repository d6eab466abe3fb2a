"""What was collected for the groups that are ranked together."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from lightning_prune.functional.reconstruction.elimination import Elimination
from lightning_prune.functional.widths.width import is_selectable
from lightning_prune.graph.group import ChannelGroups
from lightning_prune.observe.activations import ObjectActivations
from lightning_prune.policies.criteria.criterion import Evidence
from lightning_prune.policies.selection.clusterer import ChannelClusterer, source_moments


def group_evidence(
    model: nn.Module,
    groups: ChannelGroups,
    names: Sequence[str],
    *,
    seen: ObjectActivations | None = None,
    clusterer: ChannelClusterer | None = None,
    outputs: Mapping[str, Tensor] | None = None,
    eliminations: Mapping[str, Elimination] | None = None,
) -> dict[str, Evidence]:
    """Return the evidence for each group from what was seen of its layers.

    Args:
        model: The live model.
        groups: Its channel groups.
        names: Which of them.
        seen: Activations at objects of the groups' sources; None: there are no clusters.
        clusterer: How channels are clustered; None: as ``ChannelClusterer`` does by default.
        outputs: Source's name -> mean over images of a criterion's ``output_values``.
        eliminations: Group -> what its consumers lose at each width.

    Raises:
        NonFiniteImportanceError: an activation at the objects was NaN or infinite.
    """
    clusterer = clusterer or ChannelClusterer()
    found = {}
    for name in names:
        group, moments, clustering = groups[name], {}, None
        if seen is not None:
            moments = source_moments(group, seen)
            # Layers of very few channels have no clusters.
            clustering = (
                clusterer.cluster_seen(group, seen) if is_selectable(group.channels) else None
            )
        known = {member.layer: outputs[member.layer] for member in group.sources} if outputs else {}
        elimination = (eliminations or {}).get(name)
        found[name] = Evidence(model, group, moments, clustering, known, elimination)
    return found
