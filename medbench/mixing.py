r"""How tokens mix: one definition for every mechanism, and three numbers that sum it up.

What lives here, top to bottom: `tokens_into` catches the tokens that enter a module; `matrix` is the definition;
`mean_distance`, `effective_rank` and `share_of_self` sum a matrix up; `limits` asks what a mechanism does when
tokens are permuted, duplicated or changed one at a time.

Symbols: N tokens, C channels, $x_j$ a token that goes in, $y_i$ a token that comes out.

Nothing here knows a mechanism by name: a function or module that maps (B, N, C) to (B, N, C') is enough.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


# --------------------------------------------------------------------------------------------- tokens
def tokens_into(model: nn.Module, module: nn.Module, images: Tensor) -> Tensor:
    """The tokens that `module`, a part of `model`, receives when the model sees these images.

    Args: `images` (B, C, H, W), as the model takes them.
    Returns: (B, N, C), detached. Raises: ValueError if the forward pass never reaches `module`.
    """
    caught: list[Tensor] = []
    hook = module.register_forward_pre_hook(lambda _, args: caught.append(args[0].detach().clone()))
    try:
        with torch.no_grad():
            model.eval()(images)
    finally:
        hook.remove()
    if not caught:
        raise ValueError(f"the model never calls this {type(module).__name__}; pass a module that is part of it")
    return caught[0]


# --------------------------------------------------------------------------------------------- definition
def matrix(fn: Callable[[Tensor], Tensor], x: Tensor, *, rows: Sequence[int] | None = None,
           chunk: int = 128) -> Tensor:
    r"""How much each token that comes out depends on each token that went in.

    $M_{ij} = \lVert \partial y_i / \partial x_j \rVert_F$, the Frobenius norm of a C' x C block of the Jacobian.
    For softmax attention with frozen weights A it is proportional to A; unlike A it exists for every mechanism.

    Args: `fn` maps (B, N, C) to (B, N, C') and treats the images of a batch apart (put a module in eval mode);
    `x` is one image's tokens, (N, C) or (1, N, C); `rows` the outputs wanted (default all);
    `chunk` how many gradients are taken at a time.
    Returns: (len(rows), N), non-negative, in the dtype of `x`.
    Raises: ValueError if `x` is not one image or a row does not exist.
    Source: the definition is ours; the norm of the Jacobian is the usual sensitivity of an output to an input.
    """
    x = x[None] if x.dim() == 2 else x
    if x.dim() != 3 or x.shape[0] != 1:
        raise ValueError(f"mixing needs the tokens of one image, (N, C) or (1, N, C), but received {tuple(x.shape)}")
    tokens = x.shape[1]
    rows = list(range(tokens)) if rows is None else [int(row) for row in rows]
    if any(not 0 <= row < tokens for row in rows):
        raise ValueError(f"rows {rows} are not all tokens of this image; it has {tokens}, counted from 0")
    with torch.no_grad():
        channels = fn(x).shape[-1]
    wanted = [(place, row, channel) for place, row in enumerate(rows) for channel in range(channels)]
    squares = x.new_zeros(len(rows), tokens)
    for start in range(0, len(wanted), chunk):
        place, row, channel = (torch.tensor(part, device=x.device) for part in zip(*wanted[start:start + chunk]))
        squares.index_add_(0, place, _gradients(fn, x, row, channel).square().sum(-1))
    return squares.sqrt()


def _gradients(fn, x: Tensor, row: Tensor, channel: Tensor) -> Tensor:
    """d y[row, channel] / d x for several (row, channel) pairs at once, one copy of the image each: (K, N, C)."""
    copies = x.detach().expand(len(row), -1, -1).clone().requires_grad_(True)
    with torch.enable_grad():
        out = fn(copies)
        picked = out[torch.arange(len(row), device=x.device), row, channel]
        return torch.autograd.grad(picked.sum(), copies)[0]


# --------------------------------------------------------------------------------------------- summaries
def distances(grid_size: tuple[int, int]) -> Tensor:
    """Distance between the centres of any two tokens of a row-major grid: (N, N), in tokens, float64."""
    rows, columns = grid_size
    where = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).double()
    return torch.cdist(where, where)


def mean_distance(mixing: Tensor, grid_size: tuple[int, int], rows: Sequence[int] | None = None) -> float:
    r"""How far away the tokens are that an output listens to.

    $\frac1n \sum_i \sum_j M_{ij} D_{ij} / \sum_j M_{ij}$ with D the distance between tokens i and j.

    Args: `mixing` (n, N) from `matrix`; `grid_size` (rows, columns) with N = rows x columns; `rows` the outputs
    that `mixing` holds (default: all N). Returns: tokens. 0 when nothing is mixed.
    Raises: ValueError if the sizes do not fit.
    """
    apart = distances(grid_size).to(mixing.device)
    apart = apart if rows is None else apart[list(rows)]
    if apart.shape != mixing.shape:
        raise ValueError(f"a {grid_size} grid wants a mixing matrix of {tuple(apart.shape)} but received "
                         f"{tuple(mixing.shape)}; name the rows that it holds")
    weights = mixing.double()
    return float(((weights * apart).sum(1) / weights.sum(1).clamp_min(1e-300)).mean())


def effective_rank(mixing: Tensor) -> float:
    r"""How many independent patterns of mixing there are: $\exp(-\sum_k p_k \ln p_k)$, $p = \sigma / \sum\sigma$.

    Args: `mixing` (n, N). Returns: a number from 1 (every output listens alike) to min(n, N) (each to its own).
    Source: Roy and Vetterli 2007, "The effective rank", EUSIPCO.
    """
    values = torch.linalg.svdvals(mixing.double())
    share = values / values.sum()
    share = share[share > 1e-15]
    return float(torch.exp(-(share * share.log()).sum()))


def share_of_self(mixing: Tensor) -> float:
    """The mean share of an output's mixing that comes from its own token, for a square matrix: from 0 to 1."""
    weights = mixing.double()
    return float((weights.diagonal() / weights.sum(1).clamp_min(1e-300)).mean())


# --------------------------------------------------------------------------------------------- limits
def permutation_error(fn, x: Tensor, *, seed: int = 0) -> float:
    """max |fn(Px) - P fn(x)| / max |fn(x)| for a random permutation P of the N tokens of `x` (B, N, C)."""
    order = torch.randperm(x.shape[1], generator=torch.Generator().manual_seed(seed)).to(x.device)
    with torch.no_grad():
        before = fn(x)
        return _relative(fn(x[:, order]), before[:, order])


def duplication_error(fn, x: Tensor) -> float:
    """max |fn([x; x]) - [fn(x); fn(x)]| / max |fn(x)|: what changes when every token comes twice, `x` (B, N, C)."""
    with torch.no_grad():
        once = fn(x)
        return _relative(fn(torch.cat([x, x], 1)), torch.cat([once, once], 1))


def outputs_moved(fn, x: Tensor, *, token: int = 0) -> int:
    """How many of the N output tokens move at all when one token that goes in is changed, `x` (B, N, C)."""
    changed = x.clone()
    changed[:, token] = changed[:, token].flip(-1) + 1
    with torch.no_grad():
        moved = (fn(changed) - fn(x)).abs().amax((0, 2))
    return int((moved > 1e-12 * moved.max()).sum())


def limits(fn, x: Tensor, *, tolerance: float = 1e-6):
    """The same three questions for every mechanism: permute, duplicate, change one token.

    Args: `fn` maps (B, N, C) to (B, N, C); `x` tokens; `tolerance` the relative error that still counts as equal.
    Returns: a DataFrame with the columns `question`, `answer`, `error` (relative, 1; NaN where it does not apply).
    A mechanism that refuses the input (built for one grid only) gives the start of its own message as the answer.
    """
    import pandas as pd

    def ask(question, measure):
        try:
            error = measure(fn, x)
        except (ValueError, RuntimeError) as refusal:
            return question, textwrap.shorten(f"refused: {refusal}", 36, placeholder=" ..."), math.nan
        return question, "yes" if error <= tolerance else "no", error

    rows = [ask("permute tokens: outputs permuted alike?", permutation_error),
            ask("give every token twice: outputs stay?", duplication_error)]
    moved = outputs_moved(fn, x)
    rows.append(("change one token: how many outputs move?", f"{moved} of {x.shape[1]}", math.nan))
    return pd.DataFrame(rows, columns=["question", "answer", "error"])


def _relative(got: Tensor, wanted: Tensor) -> float:
    """The largest difference as a share of the largest value wanted."""
    return float((got - wanted).abs().max() / wanted.abs().max().clamp_min(1e-300))
