"""Which factor of rows is cut where a reshape takes them for a product."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from lightning_prune.graph.labels import Ids, Labels, Lattice

Factor = Literal["outer", "inner"]
Pins = dict[int, str]


@dataclass(frozen=True)
class Elements:
    """Labels after the ties of lattices: what can only go together is one element.

    Attributes:
        of: Element of every label.
        pins: Element -> why it has to stay.
    """

    of: Ids
    pins: Pins


def pins_of(labels: Labels, classes: Ids) -> Pins:
    """Return the first reason that was given against each class."""
    found: Pins = {}
    for own, reason in labels.pins:
        for number in np.unique(classes[own]).tolist():
            found.setdefault(number, reason)
    return found


def tie(labels: Labels, classes: Ids, pins: Pins, prefer: Factor) -> Elements:
    """Choose one factor of every lattice, and tie its rows along the others.

    Factors of which a position is pinned are no choice; of the others the first (``outer``) or last
    (``inner``), unless another lattice with the same factor has chosen already.

    Args:
        labels: What the trace has learned.
        classes: Class of each label, as far as joins say.
        pins: Reasons against classes.
        prefer: Which factor where there is a choice.
    """
    ties: list[tuple[Ids, Ids]] = []
    against: list[tuple[Ids, str]] = []
    chosen: dict[int, bool] = {}
    for lattice in labels.lattices:
        heads = [int(classes[factor[0]]) for factor in lattice.factors]
        stays = [_stays(classes, pins, factor) for factor in lattice.factors]
        free = [n for n, reason in enumerate(stays) if reason is None]
        wanted = [n for n in free if chosen.get(heads[n]) is True]
        open_ = [n for n in free if chosen.get(heads[n]) is not False]
        rows = lattice.rows
        if not open_:
            reason = next((r for r in stays[::-1] if r is not None), _layout(lattice))
            against.append((rows[rows >= 0], reason))
            continue
        free_one = wanted[0] if wanted else open_[0 if prefer == "outer" else -1]
        for number, head in enumerate(heads):
            chosen.setdefault(head, number == free_one)
            if number != free_one and stays[number] is None:
                against.append((lattice.factors[number], _layout(lattice)))
        moved = np.moveaxis(rows, free_one, 0).reshape(rows.shape[free_one], -1)
        factor = np.broadcast_to(lattice.factors[free_one][:, None], moved.shape)
        whole = moved >= 0
        ties.append((moved[whole], factor[whole]))
    elements = labels.classes(ties)
    found: Pins = {}
    _, places = np.unique(classes, return_index=True)
    for number, reason in pins.items():
        found.setdefault(int(elements[places[number]]), reason)
    for own, reason in against:
        for number in np.unique(elements[own]).tolist():
            found.setdefault(number, reason)
    return Elements(elements, found)


def _stays(classes: Ids, pins: Pins, factor: Ids) -> str | None:
    return next((pins[c] for c in classes[factor].tolist() if c in pins), None)


def _layout(lattice: Lattice) -> str:
    place = f" ({lattice.place})" if lattice.place else ""
    shape = " x ".join(map(str, lattice.rows.shape))
    return f"a reshape takes its channels for {shape}{place}, of which another factor is cut"


def components(labels: Labels) -> Ids:
    """Return the component of every label: joins and all factors of lattices taken together."""
    ties = []
    for lattice in labels.lattices:
        rows = lattice.rows[lattice.rows >= 0].ravel()
        if not len(rows):
            continue
        first = rows[:1]
        for other in (rows, *lattice.factors):
            ties.append((np.broadcast_to(first, other.shape), other))
    return labels.classes(ties)
