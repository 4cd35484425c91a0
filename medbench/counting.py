"""How `cost` counts: a copy of a model without data is run once, and three observers watch its operators.

What lives here, top to bottom: the copy (`ghost`); the prices of fvcore's convention (`EXTRA`); `watch`, which runs the
copy and returns what each module cost; `Ledger` and `Fused`, which follow the tensors.
"""

from __future__ import annotations

import copy
import math
import weakref

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry

LAYER_NORM, BATCH_NORM, POOL, RESIZE = 5, 2, 1, 4   # fvcore's price per element; a norm without weights costs 1 less
aten = torch.ops.aten


# --------------------------------------------------------------------------------------------- the copy
def dtype_of(model: nn.Module) -> torch.dtype:
    """The type of the model's first floating-point parameter; float32 without one."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


def ghost(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode, on torch's `meta` device: shapes and types without data."""
    model = getattr(model, "_orig_mod", model)                   # what torch.compile wraps
    memo = {id(p): nn.Parameter(torch.empty_like(p, device="meta"), p.requires_grad) for p in model.parameters()}
    memo |= {id(b): torch.empty_like(b, device="meta") for b in model.buffers()}
    copied = copy.deepcopy(model, memo).eval()
    for module in copied.modules():
        for name, value in list(vars(module).items()):           # tensors that are no buffers
            if isinstance(value, Tensor):
                setattr(module, name, value.to("meta"))
    return copied


def forward(model: nn.Module, x: Tensor) -> Tensor:
    """The model's output; an input that does not run through it is refused by its shape."""
    try:
        return model(x)
    except Exception as error:
        name = type(model).__name__
        raise ValueError(f"an input of {tuple(x.shape)} does not run through {name}: {error}") from error


# --------------------------------------------------------------------------------------------- counting
# Each rule takes the shapes of an operator's arguments and returns FLOPs, 2 for each MAC, as torch's counter wants.
def _layer_norm(shape, normalized_shape, weight, *args, out_shape=None, **kwargs) -> int:
    return 2 * math.prod(shape) * (LAYER_NORM if weight is not None else LAYER_NORM - 1)


def _group_norm(shape, weight, *args, out_shape=None, **kwargs) -> int:
    return _layer_norm(shape, None, weight)


def _batch_norm(shape, weight, *args, out_shape=None, **kwargs) -> int:
    return 2 * math.prod(shape) * (BATCH_NORM if weight is not None else BATCH_NORM - 1)


def _pool(shape, *args, out_shape=None, **kwargs) -> int:
    return 2 * math.prod(shape) * POOL


def _resize(shape, *args, out_shape=None, **kwargs) -> int:
    return 2 * math.prod(out_shape) * RESIZE


EXTRA = {
    aten.native_layer_norm: _layer_norm, aten.native_group_norm: _group_norm,
    aten.native_batch_norm: _batch_norm, aten._native_batch_norm_legit_no_training: _batch_norm,
    aten.mean: _pool, aten._adaptive_avg_pool2d: _pool, aten.upsample_bilinear2d: _resize,
}


def watch(model: nn.Module, input_size: tuple[int, ...]) -> tuple[dict[str, tuple[int, int]], Ledger]:
    """Run a `ghost` once. Returns: {path of a module: (macs, macs_fvcore)}, the whole under `""`; and the ledger."""
    x = torch.empty(input_size, device="meta", dtype=dtype_of(model))
    ledger = Ledger({t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers())})
    ledger.known.add(x.untyped_storage()._cdata)             # the caller's, not the model's
    counter = FlopCounterMode(display=False, custom_mapping=EXTRA)
    with torch.no_grad(), ledger, counter, Fused(ledger):    # inference_mode would take some operators apart
        forward(model, x)
    root, found = type(model).__name__, counter.get_flop_counts()
    counts = {path.removeprefix(root).removeprefix("."): _sum(ops) for path, ops in found.items() if path != "Global"}
    return counts | {"": _sum(found.get("Global", {}))}, ledger


def _sum(ops: dict) -> tuple[int, int]:
    """(macs, macs_fvcore) from the FLOPs of each operator."""
    extra = sum(flops for op, flops in ops.items() if op in EXTRA)
    everything = sum(ops.values())
    return (everything - extra) // 2, everything // 2


# --------------------------------------------------------------------------------------------- memory
class Ledger(TorchDispatchMode):
    """Follows the tensors that operators return: how many numbers live at once, how many the products move."""

    def __init__(self, weights: set[int]):
        super().__init__()
        self.weights, self.known = weights, set()
        self.live = self.peak = self.traffic = 0
        self.inside_fused = False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if not self.inside_fused:
            self.keep(out)
            if getattr(func, "_overloadpacket", None) in flop_registry:
                self.move(args, kwargs, out)
        return out

    def move(self, *operands) -> None:
        """A product reads its operands and writes its result once; weights are counted apart."""
        self.traffic += sum(t.numel() for t in tree_leaves(operands)
                            if isinstance(t, Tensor) and t.untyped_storage()._cdata not in self.weights)

    def keep(self, out) -> None:
        """Count new storages until they are freed; a view has none of its own."""
        for t in tree_leaves(out):
            if not isinstance(t, Tensor):
                continue
            storage = t.untyped_storage()
            key, size = storage._cdata, storage.nbytes() // t.element_size()
            if key in self.known or key in self.weights:
                continue
            self.known.add(key)
            self.live += size
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self.forget, key, size)

    def forget(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.live -= size


class Fused(TorchFunctionMode):
    """Lets the ledger see fused attention as one operator, which never writes the N x N matrix to memory."""

    def __init__(self, ledger: Ledger):
        super().__init__()
        self.ledger = ledger

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        self.ledger.inside_fused = True
        try:
            out = func(*args, **(kwargs or {}))
        finally:
            self.ledger.inside_fused = False
        self.ledger.keep(out)
        self.ledger.move(args, kwargs, out)
        return out
