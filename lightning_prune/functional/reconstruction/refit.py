"""Weights refitted to what a layer reads now, so that it gives what it gave."""

import torch
from torch import Tensor

_SHIFT = 1e-12  # as a fraction of the number of places: a shift costs nothing


def refit_weight(
    products: Tensor, mixed: Tensor, weight: Tensor, ridge: float, *, shift: bool = False
) -> tuple[Tensor, Tensor] | None:
    r"""Fit a weight by least squares, drawn towards the one there is.

    .. math:: W' = W + (Y X^T - W X X^T)(X X^T + \lambda I)^{-1}, \qquad
        \lambda = ridge \cdot \overline{diag(X X^T)}

    with X (n, R) the inputs as they are now and Y (m, R) the outputs as they should be. Inputs
    that are always zero keep the weights that they have.

    Args:
        products: X X^T, (G, n, n) for each of G groups of a layer; with ``shift`` (G, n + 1, n +
            1), of which the last input is 1.
        mixed: X Y^T, (G, n, m) or (G, n + 1, m).
        weight: W, (G, m, n).
        ridge: Regularization as a fraction of the mean squared input, positive.
        shift: Whether a constant is fitted too.

    Returns:
        W' and the constant, (G, m); None where the products are not finite.

    Source: He, Zhang, Sun, 2017, Channel Pruning for Accelerating Very Deep Neural Networks, ICCV,
    arXiv 1707.06168, equation 4: inputs of the pruned network, outputs of the dense one.

    >>> x, y = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[3.0, 5.0, 7.0]])  # y = 2 x + 1
    >>> ones = torch.ones(1, 3)
    >>> read = torch.cat([x, ones])
    >>> weight, constant = refit_weight(
    ...     (read @ read.T)[None], (read @ y.T)[None], torch.zeros(1, 1, 1), 1e-6, shift=True)
    >>> round(weight.item(), 2), round(constant.item(), 2)
    (2.0, 1.0)
    """
    if not bool(products.isfinite().all() and mixed.isfinite().all()):
        return None
    inputs = weight.shape[2]
    products, mixed, old = products.double(), mixed.double(), weight.double()
    diagonal = products.diagonal(dim1=1, dim2=2)
    used = diagonal > 0
    count = used[:, :inputs].sum(1).clamp(min=1)
    damping = (ridge * diagonal[:, :inputs].sum(1) / count)[:, None].expand_as(diagonal).clone()
    if shift:
        damping[:, -1] = _SHIFT * diagonal[:, -1]
    # Inputs that never come have zero rows and columns: with a one there they stay as they are.
    damping = torch.where(used & (damping > 0), damping, torch.ones_like(damping))
    missing = mixed - products[:, :, :inputs] @ old.transpose(1, 2)
    damped = products + torch.diag_embed(damping)
    factor, failed = torch.linalg.cholesky_ex(damped)
    if not bool(failed.any()):
        added = torch.cholesky_solve(missing, factor)
    else:  # rounding left a negative square
        try:
            added = torch.linalg.solve(damped, missing)
        except RuntimeError:
            return None
    constant = added[:, -1] if shift else added.new_zeros(len(old), old.shape[1])
    return old + added[:, :inputs].transpose(1, 2), constant
