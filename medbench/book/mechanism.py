"""What the mechanism chapters share: cost and time against N, the one slice, a trained layer's mixing, recorded rows.

A chapter shows one mechanism with the same cells as its neighbours; what would be more than a few lines in a cell is
here, so that all chapters ask the same thing in the same way.
"""

from __future__ import annotations

import math

from .. import cost, data, latency, mixing, phantom, results
from ..attention import ATTENTION
from ..experiment import Experiment
from .tables import of_one_device

SLICE = {"class": "intra", "index": 10, "seed": 2022}          # the image that every mechanism chapter shows


def brain_slice(img_size: int = 112):
    """The one phantom image that every mechanism chapter shows: a `Batch` of one, with its lesion mask."""
    label = phantom.CLASSES.index(SLICE["class"])
    return phantom.generate([label], [SLICE["index"]], seed=SLICE["seed"], img_size=img_size)


def layers(variants, side: int, dim: int, num_heads: int) -> dict:
    """Mechanisms on a square grid: {label: layer}.

    Args: `variants` names of mechanisms, or {label: (name, options)} to show one with several options.
    """
    variants = variants if isinstance(variants, dict) else {name: (name, {}) for name in variants}
    return {label: ATTENTION[name](dim, num_heads, (side, side), **options).eval()
            for label, (name, options) in variants.items()}


def cost_table(variants, sides, dim: int = 96, num_heads: int = 3):
    """Multiply-adds of mixing alone, in closed form and counted, for square grids.

    Args: `variants` as for `layers`; `sides` of the grids in tokens, N = side x side.
    Returns: DataFrame `model`, `num_tokens`, `closed_form`, `counted` (MAC), as `mb.plots.cost_curves` takes it.
    """
    import pandas as pd

    rows = []
    for side in sides:
        for label, layer in layers(variants, side, dim, num_heads).items():
            counted = cost.profile(layer, (1, side * side, dim)).mixing_macs
            rows.append((label, side * side, layer.mixing_macs(side * side), counted))
    return pd.DataFrame(rows, columns=["model", "num_tokens", "closed_form", "counted"])


def time_table(variants, sides, book, dim: int = 96, num_heads: int = 3):
    """How long one layer takes on one image, the variants interleaved as `mb.latency.compare` does it.

    Args: `variants`, `sides`, `dim`, `num_heads` as for `cost_table`; `book` the chapter: its device, and a thirtieth
    of its profile's seconds for each side. Returns: DataFrame `model`, `num_tokens`, `latency_ms` (median),
    `latency_ms_low`, `latency_ms_high` (95 % interval), `verdict` beside the first variant.
    """
    import pandas as pd

    tables = []
    for side in sides:
        times = latency.compare(layers(variants, side, dim, num_heads), (1, side * side, dim), device=str(book.device),
                                rounds=book.profile.latency_rounds, seconds=book.profile.latency_seconds / 30)
        tables.append(times.frame().assign(num_tokens=side * side))
    columns = ["model", "num_tokens", "latency_ms", "latency_ms_low", "latency_ms_high", "verdict"]
    return pd.concat(tables, ignore_index=True)[columns]


def verdicts(times) -> str:
    """What `time_table` says of each variant beside the first one, in words: one line a variant."""
    first = times.model.iloc[0]
    lines = []
    for model, part in times[times.model != first].groupby("model", sort=False):
        said = {word: [str(n) for n in part[part.verdict == word].num_tokens] for word in dict.fromkeys(part.verdict)}
        words = "; ".join(f"{word} at {', '.join(sizes)} tokens" for word, sizes in said.items())
        lines.append(f"{model} beside {first}: {words}")
    return "\n".join(lines)


def experiment(name: str, book):
    """The experiment that chapter 10 runs for a model with the chapter's profile, device and seed: `fit` then loads its
    finished run."""
    return Experiment.preset(book.profile.preset, name, seed=book.seed, profile=book.profile, device=str(book.device))


def mixing_of(model, images, *, stage: int = 0, block: int = 1):
    """The mixing matrix of one trained mechanism on one image, and its grid.

    Args: `model` a pyramid; `images` uint8 (1, H, W); `stage`, `block` count from 0. The default is the second block
    of the first stage: the finest grid, and the first block in which windows shift.
    Returns: (matrix (N, N), grid_size).
    """
    attn = model.stages[stage].blocks[block].attn
    device = next(model.parameters()).device
    x = data.to_input(images, model.config.in_chans).to(device)
    tokens = mixing.tokens_into(model, attn, x)
    return mixing.matrix(attn, tokens).cpu(), model.stages[stage].grid_size


def mixing_rows(matrix, grid_size) -> list[dict]:
    """The three numbers that sum a mixing matrix up, as rows for `mb.results.record`."""
    numbers = {"mean_distance": mixing.mean_distance(matrix, grid_size), "share_of_self": mixing.share_of_self(matrix),
               "effective_rank": mixing.effective_rank(matrix)}
    about = {"tokens": math.prod(grid_size), "grid": "x".join(map(str, grid_size))}
    same = {"unit": "1", "n": 1, "context": about}
    return [{"quantity": name, "value": value, **same} for name, value in numbers.items()]


def recorded(quantity: str, chapter: str = "10_training", device="auto"):
    """One quantity of the phantom's models, as chapters 10 to 12 recorded it on one device.

    Args: `quantity` such as "balanced_accuracy"; `device` the chapter's: its records are taken if there are any, else
    those of the device with the most. Returns: rows of `mb.results.load()` that belong to a model, of one device.
    Raises: LookupError if nothing is recorded, with the chapter that records it.
    """
    table = results.load()
    table = table[(table.chapter == chapter) & (table.quantity == quantity) & table.model.notna()
                  & (table.device != results.STUDY) & table.value.notna()]
    if "class" in table:
        table = table[table["class"].isna()]
    if not len(table):
        raise LookupError(f"no chapter has recorded {quantity} yet; run it first: make chapter NAME={chapter}")
    return of_one_device(table, device)


def mixing_table(rows: list[dict], grid_size):
    """The rows of `mixing_rows` beside what averaging over all tokens, and no mixing at all, would give."""
    import pandas as pd
    import torch

    tokens = math.prod(grid_size)
    ends = {"averaging": mixing_rows(torch.ones(tokens, tokens), grid_size),
            "no mixing": mixing_rows(torch.eye(tokens), grid_size)}
    parts = {"this layer": rows, **ends}
    table = {name: {row["quantity"]: row["value"] for row in part} for name, part in parts.items()}
    names = {"mean_distance": "mean distance (tokens)", "share_of_self": "share of its own token",
             "effective_rank": f"effective rank (of {tokens})"}
    return pd.DataFrame(table).T.rename(columns=names).round(3)


def two_tokens(batch, grid_size) -> tuple[int, int]:
    """Two tokens to ask on the slice: the one that holds most of the lesion, and its mirror image in the other half."""
    import torch.nn.functional as F

    share = F.adaptive_avg_pool2d(batch.lesion[:1].float(), grid_size)[0]
    row, column = divmod(int(share.argmax()), grid_size[1])
    return row * grid_size[1] + column, row * grid_size[1] + grid_size[1] - 1 - column


def attention_matrix(model, images, *, stage: int = 0, block: int = 1, head: int = 0):
    """softmax(QK^T / sqrt d) of one head of a trained softmax model on one image: (N, N)."""
    import torch

    attn = model.stages[stage].blocks[block].attn
    x = data.to_input(images, model.config.in_chans).to(next(model.parameters()).device)
    with torch.no_grad():
        q, k, _ = attn.heads(mixing.tokens_into(model, attn, x))
        return (q @ k.mT / attn.head_dim**0.5).softmax(-1)[0, head].cpu()
