"""Labels of channels: which positions of which tensors can only go together."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Ids = NDArray[np.int64]
"""Labels of the positions of one axis; -1 where a position has none."""
NONE = -1
_ATTRIBUTE = "_channel_labels"
_PINS = "_channel_label_pins"
_WEIGHTS = "_channel_weights"


@dataclass(frozen=True)
class Axis:
    """An axis of a parameter or buffer of which every position has a label of its own.

    Attributes:
        owner: Name of the module that holds the tensor.
        tensor: Its name in the module.
        dim: The axis.
        first: Label of position 0; the others follow.
        size: Number of positions.
    """

    owner: str
    tensor: str
    dim: int
    first: int
    size: int


@dataclass(frozen=True)
class Lattice:
    """Rows that a reshape takes for a product of factors: a cut must leave a rectangle.

    Attributes:
        rows: (f_1, ..., f_k) labels of the rows.
        factors: Labels of each factor's positions.
        place: File and line of the reshape in a user's code, for reasons.
    """

    rows: Ids
    factors: tuple[Ids, ...]
    place: str = ""


@dataclass(frozen=True)
class TensorLabels:
    """Labels of a tensor's axes.

    Attributes:
        axes: Axis -> labels, as many as the axis has positions; axes without labels are absent.
        weight: Whether the tensor was computed from parameters and constants alone.
        part: Labels of single positions that were taken of axes that are gone: the queries among
            (queries, keys, values).
    """

    axes: Mapping[int, Ids]
    weight: bool = False
    part: Collection[int] = ()


@dataclass(frozen=True)
class Number:
    """A size of labelled positions that a forward pass states as a number.

    Attributes:
        labels: The positions.
        modules: Names of the modules that were running, the innermost last.
        place: File and line in a user's code, or "".
    """

    labels: Ids
    modules: tuple[str, ...]
    place: str


class Product(NamedTuple):
    """Two sides of a sum over products of activations: queries and keys.

    Attributes:
        first: Labels of the axis that is summed over, and what was taken of other axes.
        second: The same of the other side.
    """

    first: tuple[Ids, frozenset[int]]
    second: tuple[Ids, frozenset[int]]


@dataclass
class Labels:
    """The labels of one traced pass (or several), and everything that was learned of them.

    A label is an int64. ``join`` says that pairs of them can only go together, ``pin`` that some
    must stay, ``lattice`` that rows are a product of factors. Nothing is decided here.

    >>> labels = Labels()
    >>> rows, columns = labels.axis("a", "weight", 0, 2), labels.axis("b", "weight", 1, 2)
    >>> labels.join(rows, columns)
    >>> labels.classes().tolist()
    [0, 1, 0, 1]
    """

    axes: list[Axis] = field(default_factory=list)
    count: int = 0
    pins: list[tuple[Ids, str]] = field(default_factory=list)
    lattices: list[Lattice] = field(default_factory=list)
    numbers: dict[tuple[str, int, int, str], Number] = field(default_factory=dict)
    made: list[tuple[Ids, int]] = field(default_factory=list)
    read: list[tuple[Ids, int]] = field(default_factory=list)
    statistics: list[tuple[Ids, str]] = field(default_factory=list)
    outputs: dict[str, list[tuple[int, Ids]]] = field(default_factory=dict)
    products: list[Ids] = field(default_factory=list)
    scores: list[Product] = field(default_factory=list)
    repeated: list[tuple[Ids, int]] = field(default_factory=list)
    aliases: dict[int, int] = field(default_factory=dict)
    sizes: list[tuple[Ids, str, str]] = field(default_factory=list)
    costs: list[tuple[int, tuple[Ids, ...]]] = field(default_factory=list)
    _pairs: list[tuple[Ids, Ids]] = field(default_factory=list)
    _known: dict[tuple[bytes, ...], int] = field(default_factory=dict)
    _clock: int = 0
    _settled: Ids | None = None
    _classes: tuple[tuple[int, int], Ids, int] | None = None

    def fresh(self, size: int) -> Ids:
        """Return labels that no position has yet."""
        first = self.count
        self.count += size
        return np.arange(first, first + size, dtype=np.int64)

    def axis(self, owner: str, tensor: str, dim: int, size: int) -> Ids:
        """Return labels for the positions of an axis of a parameter or buffer."""
        labels = self.fresh(size)
        self.axes.append(Axis(owner, tensor, dim, int(labels[0]), size))
        return labels

    def alias(self, owner: str, tensor: str, dim: int, own: Ids) -> None:
        """Note that a module holds a tensor that has its labels as another one's."""
        labels = self.axis(owner, tensor, dim, len(own))
        self.aliases[int(labels[0])] = int(own[0])
        self.join(labels, own)

    def join(self, first: Ids, second: Ids, reason: str = "a constant of fixed size") -> None:
        """Note that positions of equal number can only go together.

        Where only one of the two has a label, that one is pinned.
        """
        if first is second:
            return
        both = (first >= 0) & (second >= 0)
        if both.all():
            self._pairs.append((first, second))
            return
        self._pairs.append((first[both], second[both]))
        alone = np.where(first >= 0, first, second)[~both]
        self.pin(alone, reason)

    def pin(self, labels: Ids, reason: str) -> None:
        """Note that positions must stay, and why."""
        if self._settled is None:
            self.must_stay(labels, reason)

    def must_stay(self, labels: Ids, reason: str) -> None:
        """Pin positions also once everything else is settled: those of outputs."""
        labels = labels[labels >= 0]
        if len(labels):
            self.pins.append((np.unique(labels), reason))

    def settle(self) -> None:
        """Settle what eval mode does; what training does can only add to it.

        From now on joins and lattices are noted, no pins, and roles only of axes without one: a
        loss may take means over channels, or multiply a weight with itself.
        """
        self._settled = np.zeros(self.count, dtype=bool)
        for own, _ in (*self.made, *self.read):
            self._settled[own[own >= 0]] = True

    def _is_settled(self, labels: Ids) -> bool:
        if self._settled is None:
            return False
        known = labels[(labels >= 0) & (labels < len(self._settled))]
        return bool(self._settled[known].any())

    def lattice(self, rows: Ids, place: str = "") -> tuple[Ids, ...]:
        """Return labels for the factors of rows (f_1, ..., f_k), the same for the same rows.

        Rows of which only a part has labels must stay.
        """
        key = (rows.tobytes(), str(rows.shape).encode())
        if key not in self._known:
            factors = tuple(self.fresh(size) for size in rows.shape)
            self._remember(Lattice(rows, factors, place))
            if (rows < 0).any():
                self.pin(rows, "only a part of what is reshaped has channels")
        return self.lattices[self._known[key]].factors

    def product(self, factors: Sequence[Ids], place: str = "") -> Ids:
        """Return labels (f_1, ..., f_k) for the rows whose factors these are."""
        key = tuple(factor.tobytes() for factor in factors)
        if key not in self._known:
            shape = [len(factor) for factor in factors]
            rows = self.fresh(int(np.prod(shape))).reshape(shape)
            self._remember(Lattice(rows, tuple(factors), place))
        return self.lattices[self._known[key]].rows

    def _remember(self, lattice: Lattice) -> None:
        number = len(self.lattices)
        self.lattices.append(lattice)
        rows = lattice.rows
        self._known[rows.tobytes(), str(rows.shape).encode()] = number
        self._known[tuple(factor.tobytes() for factor in lattice.factors)] = number

    def mark_made(self, labels: Ids, times: int = 1) -> None:
        """Note that a layer makes these positions out of others: rows of a weight.

        Args:
            labels: The positions.
            times: Channels that each of them makes: the rows of a transposed convolution of
                several groups are those of every group.
        """
        if self._is_settled(labels):
            return
        self._clock += 1
        self.made.append((labels, self._clock))
        self._repeat(labels, times)

    def mark_read(self, labels: Ids, times: int = 1) -> None:
        """Note that a layer sums over these positions: columns of a weight.

        Args:
            labels: The positions.
            times: Channels that each of them reads: the columns of a convolution of several groups
                are those of every group.
        """
        if self._is_settled(labels):
            return
        self._clock += 1
        self.read.append((labels, self._clock))
        self._repeat(labels, times)

    def _repeat(self, labels: Ids, times: int) -> None:
        if times > 1:
            self.repeated.append((labels, times))

    def classes(self, further: Iterable[tuple[Ids, Ids]] = ()) -> Ids:
        """Return the class of every label, joins (and further ones) carried out.

        Classes are numbered in the order of their smallest labels.
        """
        classes, count = self._joined()
        pairs = list(further)
        if not pairs:
            return classes
        first = classes[np.concatenate([pair[0].ravel() for pair in pairs])]
        second = classes[np.concatenate([pair[1].ravel() for pair in pairs])]
        return connected(count, first, second)[classes]

    def _joined(self) -> tuple[Ids, int]:
        """Return the class of every label and their number; computed once for all joins so far."""
        state = self.count, len(self._pairs)
        if self._classes is None or self._classes[0] != state:
            classes = np.arange(self.count, dtype=np.int64)
            if self._pairs:
                first = np.concatenate([pair[0].ravel() for pair in self._pairs])
                second = np.concatenate([pair[1].ravel() for pair in self._pairs])
                classes = connected(self.count, first, second)
            self._classes = state, classes, int(classes.max(initial=-1)) + 1
        return self._classes[1], self._classes[2]


def connected(count: int, first: Ids, second: Ids) -> Ids:
    """Return the connected component of each of ``count`` nodes, given edges between them.

    Components are numbered in the order of their smallest nodes.

    >>> connected(4, np.array([0, 1]), np.array([3, 2])).tolist()
    [0, 1, 1, 0]
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = coo_array((np.ones(len(first)), (first, second)), shape=(count, count))
    found: Ids = connected_components(edges, directed=False)[1].astype(np.int64)
    if (np.diff(np.maximum.accumulate(found), prepend=-1) <= 1).all():
        return found  # numbered so already: nodes are visited in order
    _, place, inverse = np.unique(found, return_index=True, return_inverse=True)
    rank = np.empty(len(place), dtype=np.int64)
    rank[np.argsort(place)] = np.arange(len(place))
    return rank[inverse.ravel()]


def labels_of(tensor: Tensor) -> TensorLabels | None:
    """Return the labels that a traced tensor carries."""
    return getattr(tensor, _ATTRIBUTE, None)


def set_labels(tensor: Tensor, labels: TensorLabels | None) -> None:
    """Attach labels to a traced tensor; they live as long as it does."""
    if labels is not None:
        setattr(tensor, _ATTRIBUTE, labels)
    elif hasattr(tensor, _ATTRIBUTE):
        delattr(tensor, _ATTRIBUTE)


def pin_readers(tensor: Tensor, labels: Ids, reason: str) -> None:
    """Pin positions as soon as anything reads a tensor: nothing may ask for it."""
    setattr(tensor, _PINS, [*getattr(tensor, _PINS, []), (labels, reason)])


def pins_of_readers(tensor: Tensor) -> list[tuple[Ids, str]]:
    """Return what must stay because a tensor is read, and why."""
    found: list[tuple[Ids, str]] = getattr(tensor, _PINS, [])
    return found


def set_weights(tensor: Tensor, axes: Mapping[int, Ids]) -> None:
    """Note the labels of the weights that a tensor's positions were just multiplied by."""
    setattr(tensor, _WEIGHTS, axes)


def weights_of(tensor: Tensor) -> Mapping[int, Ids]:
    """Return axis -> labels of the weights that a tensor's positions were just multiplied by."""
    found: Mapping[int, Ids] = getattr(tensor, _WEIGHTS, {})
    return found


def is_uniform(tensor: Tensor, dim: int) -> bool:
    """Return whether a tensor is the same at every position of an axis.

    >>> import torch
    >>> is_uniform(torch.ones(2, 3), 1), is_uniform(torch.arange(3), 0)
    (True, False)
    """
    if tensor.stride(dim) == 0 or tensor.shape[dim] == 1 or tensor.numel() == 0:
        return True
    if tensor.is_meta:
        return False
    first = tensor.detach().narrow(dim, 0, 1)
    return bool((tensor.detach() == first).all())
