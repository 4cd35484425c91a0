r"""What a model costs: counted from its operators, and written down in closed form; the two must be equal.

What lives here, top to bottom: `Costs` and `profile`, which counts (how: `counting.py`); `closed_form`, the same by
formula; `table`; `counters`, what the usual counters say of the same model.

One multiply-add (MAC) is two floating-point operations (FLOP). Two conventions, never mixed:

- `macs` counts matrix products and convolutions alone;
- `macs_fvcore` adds, as the library fvcore does, 5 per element of a LayerNorm, 2 of a BatchNorm, 1 of what an average
  pools (the mean over tokens too) and 4 per element of a bilinear resize. Softmax, GELU and sums count nothing.

Counting runs a copy of the model that has no data (torch's `meta` device): it takes no memory and no time, and fused
attention is counted as the two products that it is, also where a CPU would run it.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch
from torch import nn

from .counting import BATCH_NORM, LAYER_NORM, POOL, RESIZE, dtype_of, forward, ghost, watch
from .rows import finding


# --------------------------------------------------------------------------------------------- what is counted
@dataclass(frozen=True)
class Costs:
    """What one forward pass costs, for the whole batch of `input_size`.

    Attributes:
        input_size: of the tensor that went in. params: trainable parameters.
        macs: multiply-adds of products alone. macs_fvcore: with norms, pooling and resizing. flops: 2 x macs.
        mixing_macs: the part of `macs` in which tokens mix (without `qkv` and `proj`); None without such a mechanism.
        by_stage: {stage: {"params", "macs", "macs_fvcore"}}, in order, summing up to the totals.
        weight_elements: numbers in parameters and buffers. activation_elements: most numbers that intermediate
            tensors hold at one moment. traffic_elements: numbers that the products read and write, apart from
            weights, if everything between them were free and attention fused; see `latency.roofline`.
    """

    input_size: tuple[int, ...]
    params: int
    macs: int
    macs_fvcore: int
    mixing_macs: int | None
    by_stage: dict[str, dict[str, int]]
    weight_elements: int
    activation_elements: int
    traffic_elements: int

    @property
    def flops(self) -> int:
        """Floating-point operations of the products: 2 x `macs`."""
        return 2 * self.macs

    @property
    def mixing_share(self) -> float | None:
        """`mixing_macs` / `macs`: what a change of mechanism can save at most."""
        return None if self.mixing_macs is None else self.mixing_macs / self.macs

    def rows(self) -> list[dict]:
        """One record a quantity, and `stage_*` with a suffix for each stage. Memory is that of float32 numbers."""
        units = {"params": "parameters", "macs": "MAC", "macs_fvcore": "MAC", "flops": "FLOP"}
        context = {"batch": self.input_size[0], "input_size": "x".join(map(str, self.input_size))}
        rows = [{"quantity": q, "value": getattr(self, q), "unit": u} for q, u in units.items()]
        reason = {} if self.mixing_macs is not None else {"reason": "the model has no mechanism that mixes tokens"}
        rows += [{"quantity": "mixing_macs", "value": self.mixing_macs, "unit": "MAC", **reason},
                 {"quantity": "mixing_share", "value": self.mixing_share, "unit": "1", **reason}]
        rows += [{"quantity": f"{part}_memory", "value": 4 * getattr(self, f"{part}_elements"), "unit": "byte",
                  "context": {"dtype": "float32"}} for part in ("weight", "activation", "traffic")]
        rows += [{"quantity": f"stage_{q}", "value": value, "unit": units[q], "suffix": stage,
                  "context": {"stage": stage}} for stage, part in self.by_stage.items() for q, value in part.items()]
        return [row | {"context": context | row.get("context", {})} for row in rows]


def profile(model: nn.Module, input_size: tuple[int, ...]) -> Costs:
    """Count parameters, multiply-adds and memory of one forward pass in evaluation mode.

    Args:
        model: any module that takes one tensor; it is neither run nor changed.
        input_size: of that tensor, such as `(1, 3, 224, 224)` for (batch, channels, height, width) in pixels.
    Returns:
        `Costs`, for the whole batch.
    Raises:
        TypeError, ValueError: not a module, or a size that does not run through it.
    Source: `torch.utils.flop_counter`; fvcore's `flop_count.py` for the second convention.
    """
    _check(model, input_size)
    copied = ghost(model)
    counts, ledger = watch(copied, tuple(input_size))
    return Costs(
        input_size=tuple(input_size), params=_trainable(copied), macs=counts[""][0], macs_fvcore=counts[""][1],
        mixing_macs=_mixing(copied, counts, input_size[0]), by_stage=_stages(copied, counts),
        weight_elements=sum(t.numel() for t in (*copied.parameters(), *copied.buffers())),
        activation_elements=ledger.peak, traffic_elements=ledger.traffic)


def _check(model, input_size) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}; wanted a torch.nn.Module, such as build_model('softmax')")
    sizes = input_size if isinstance(input_size, (tuple, list)) else ()
    if len(sizes) < 2 or not all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in sizes):
        raise ValueError(f"input_size is {input_size!r}; wanted the sizes of the whole tensor, batch first, such as "
                         f"(1, 3, 224, 224)")


def _trainable(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def _mixing(model: nn.Module, counts: dict, batch: int) -> int | None:
    """MACs of all modules that say what their mixing costs, as counted, less the projections around it.

    `.local` belongs to the mixing although the block applies it later (the local patch interaction of XCiT).
    """
    mechanisms = {name: module for name, module in model.named_modules() if hasattr(module, "mixing_macs")}

    def macs(*path):
        return counts.get(".".join(filter(None, path)), (0, 0))[0]
    return sum(macs(path) + macs(path, "local") - batch * module.projection_macs(module.num_tokens)
               for path, module in mechanisms.items()) if mechanisms else None


def _stages(model: nn.Module, counts: dict) -> dict[str, dict[str, int]]:
    """Costs of the model's children, those in a `ModuleList` one by one, and what is left as `other`."""
    parts = {}
    for name, child in model.named_children():
        parts |= {f"{name}.{i}": part for i, part in enumerate(child)} if isinstance(child, nn.ModuleList) else \
                 {name: child}
    found = {name: (_trainable(part), *counts.get(name, (0, 0))) for name, part in parts.items()}
    total = (_trainable(model), *counts[""])
    other = tuple(whole - sum(column) for whole, column in zip(total, zip(*found.values()))) if found else total
    return {name: dict(zip(("params", "macs", "macs_fvcore"), values))
            for name, values in (found | ({"other": other} if any(other) else {})).items()}


# --------------------------------------------------------------------------------------------- closed form
def closed_form(model: nn.Module, batch: int = 1) -> dict[str, dict[str, int]]:
    r"""The pyramid's multiply-adds by formula, stage by stage; `profile(...).by_stage` must say the same.

    A block on $N$ tokens of $C$ channels: the mechanism's own `mixing_macs` and `projection_macs`, $4NC^2$ but for two
    of them, and $2\rho NC^2$ for an MLP of ratio $\rho$. A patch merge to $N$ tokens:
    $N \cdot 4C' \cdot C$ from $C'$ channels. Norms, pooling and resizing as `macs_fvcore` prices them.

    Args: `model` with `.config` (a `ModelConfig`) and `.stages`, each with `.grid_size` and `.blocks`; `batch` images.
    Returns: {stage: {"macs", "macs_fvcore"}}; their sums are the totals.
    """
    config, C = model.config, model.config.embed_dims
    N = [math.prod(stage.grid_size) for stage in model.stages]
    stem, stem_extra, once = _stem(config, model.stages[0].grid_size)
    parts = {"stem": (batch * stem + once, batch * (stem_extra + LAYER_NORM * N[0] * C[0]))}
    for i, stage in enumerate(model.stages):
        merge = N[i] * 4 * C[i - 1] if i else 0              # elements that the merge normalises, then maps to C
        blocks = [_block(block, N[i], C[i], config.mlp_ratio) for block in stage.blocks]
        macs, extra = (sum(column) for column in zip(*blocks))
        parts[f"stages.{i}"] = (batch * (merge * C[i] + macs), batch * (LAYER_NORM * merge + extra))
    parts["norm"] = (0, batch * LAYER_NORM * N[-1] * C[-1])
    parts["head"] = (batch * C[-1] * config.num_classes, 0)
    parts["other"] = (0, batch * POOL * N[-1] * C[-1])       # the mean over the tokens
    return {name: {"macs": macs, "macs_fvcore": macs + extra} for name, (macs, extra) in parts.items()}


def _stem(config, grid_size: tuple[int, int]) -> tuple[int, int, int]:
    """Products and extras of the projection to tokens, and products that a batch needs only once (the positions)."""
    N, C, c = math.prod(grid_size), config.embed_dims[0], config.in_chans
    once = 64 * N * C                                        # 64 Fourier features through a 1x1 convolution
    if config.stem == "patch":
        return N * c * config.patch_size**2 * C, 0, once
    pixels = 64 * N                                          # three halvings come before the grid
    resized = pixels != math.prod(config.img_size)
    products = 9 * (pixels // 4 * c * 16 + pixels // 16 * 16 * 32 + N * 32 * C)
    return products, BATCH_NORM * (pixels // 4 * 16 + pixels // 16 * 32) + RESIZE * c * pixels * resized, once


def _block(block: nn.Module, N: int, C: int, mlp_ratio: float) -> tuple[int, int]:
    """Products and extras of one block on one image."""
    attn = block.attn
    products = attn.mixing_macs(N) + attn.projection_macs(N)
    local = (LAYER_NORM + BATCH_NORM) * N * C if len(list(attn.local.children())) else 0
    return products + 2 * N * C * int(mlp_ratio * C), 2 * LAYER_NORM * N * C + local


# --------------------------------------------------------------------------------------------- tables
def table(models: dict[str, nn.Module], input_size: tuple[int, ...]):
    """One row a model: parameters, multiply-adds in both conventions, the share of mixing, memory.

    Args: `models` {name: module}; `input_size` as for `profile`.
    Returns: DataFrame with columns `model`, `params`, `macs`, `macs_fvcore`, `flops`, `mixing_macs`, `mixing_share`,
    `weight_memory_byte`, `activation_memory_byte` (float32 numbers), unrounded.
    Raises: ValueError without models.
    """
    import pandas as pd
    if not isinstance(models, dict) or not models:
        raise ValueError(f"models is {models!r}; wanted a dict of at least one, such as {{'softmax': model}}")
    rows = []
    for name, model in models.items():
        costs = profile(model, input_size)
        fields = {key: getattr(costs, key) for key in ("params", "macs", "macs_fvcore", "flops", "mixing_macs",
                                                       "mixing_share")}
        rows.append({"model": name, **fields, "weight_memory_byte": 4 * costs.weight_elements,
                     "activation_memory_byte": 4 * costs.activation_elements})
    return pd.DataFrame(rows)


# --------------------------------------------------------------------------------------------- the trap
@dataclass(frozen=True)
class Counters:
    """What several counters say of one model. `found` {counter: MAC}; `wanted` {counter: MAC} in its own convention."""

    found: dict[str, int]
    wanted: dict[str, int]
    versions: dict[str, str]

    @property
    def missed(self) -> dict[str, float]:
        """The share of the multiply-adds that each counter does not see."""
        return {name: 1 - self.found[name] / self.wanted[name] for name in self.found}

    @property
    def text(self) -> str:
        """One sentence on the installed versions."""
        blind = [f"{name} misses {share:.1%}" for name, share in self.missed.items() if abs(share) >= 5e-4]
        which = " and ".join(f"{name} {version}" for name, version in self.versions.items())
        return f"With {which}, {', '.join(blind)} of the multiply-adds." if blind else \
            f"With {which}, every counter sees all multiply-adds."

    def frame(self):
        """DataFrame `counter`, `macs`, `wanted_macs`, `missed_share`."""
        import pandas as pd
        return pd.DataFrame({"counter": list(self.found), "macs": list(self.found.values()),
                             "wanted_macs": list(self.wanted.values()), "missed_share": list(self.missed.values())})

    def rows(self) -> list[dict]:
        """Two records a counter, and the sentence."""
        rows = [{"quantity": q, "value": value, "unit": unit, "suffix": name, "context": {"counter": name}}
                for q, unit, part in (("macs_counted", "MAC", self.found), ("missed_share", "1", self.missed))
                for name, value in part.items()]
        return [*rows, finding(self.text, "counters")]


def counters(model: nn.Module, input_size: tuple[int, ...]) -> Counters:
    """What the usual counters say, as installed, beside the same counters used with care.

    - `torch_cpu`: torch's counter around a run on the CPU; `torch_meta`: around a run without data.
    - `fvcore`: as it comes; `fvcore_handles`: told how to count fused attention, broadcast products and means.

    Fused attention on a CPU is one operator, which the naive ones may count as 0 (pytorch issue 195460) and fvcore
    does not know; it also counts `E @ k` without the batch and the heads. So the cheapest of all would be softmax.

    Args: as for `profile`; the model is copied to the CPU and run. Returns: `Counters`.
    """
    import copy

    import fvcore
    from torch.utils.flop_counter import FlopCounterMode
    costs = profile(model, input_size)
    model = copy.deepcopy(getattr(model, "_orig_mod", model)).cpu().eval()
    x = torch.rand(input_size, generator=torch.Generator().manual_seed(0)).to(dtype_of(model))
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        forward(model, x)
    found = {"torch_cpu": counter.get_total_flops() // 2, "torch_meta": costs.macs,
             "fvcore": _fvcore(model, x, {}), "fvcore_handles": _fvcore(model, x, _HANDLES)}
    wanted = {name: costs.macs if name.startswith("torch") else costs.macs_fvcore for name in found}
    return Counters(found, wanted, {"torch": torch.__version__, "fvcore": fvcore.__version__})


def _fvcore(model: nn.Module, x: torch.Tensor, handles: dict) -> int:
    from fvcore.nn import FlopCountAnalysis
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        analysis = FlopCountAnalysis(model, x).set_op_handle(**handles).tracer_warnings("none")
        return int(analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total())


def _shapes(values) -> list[list[int]]:
    return [value.type().sizes() for value in values]


def _attention_handle(inputs, outputs) -> int:
    r"""$\ldots N_q N_k (d + d_v)$."""
    q, k, v = _shapes(inputs[:3])
    return math.prod(q[:-1]) * k[-2] * (q[-1] + v[-1])


def _matmul_handle(inputs, outputs) -> int:
    """Every number of the result is a sum over the first operand's last axis."""
    return math.prod(_shapes(outputs)[0]) * _shapes(inputs)[0][-1]


def _mean_handle(inputs, outputs) -> int:
    return math.prod(_shapes(inputs[:1])[0]) * POOL


_HANDLES = {"aten::scaled_dot_product_attention": _attention_handle, "aten::matmul": _matmul_handle,
            "aten::mean": _mean_handle}
