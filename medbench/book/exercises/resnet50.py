"""Exercises of chapter 09: what a stack of convolutions costs and sees, and folding BatchNorm away."""

from __future__ import annotations

import copy

import torch
from torch import nn

from .judging import Exercise, Mistake, as_number, demand, error, randn

STACKS = {                                   # rows: in, out, kernel, stride, groups; padding is kernel // 2
    "three plain layers": ([(3, 8, 3, 1, 1), (8, 8, 3, 1, 1), (8, 4, 1, 1, 1)], 20),
    "a strided stem": ([(3, 8, 7, 2, 1), (8, 16, 3, 2, 1), (16, 16, 3, 1, 1)], 32),
    "a depthwise pair": ([(6, 12, 5, 2, 3), (12, 12, 3, 1, 12), (12, 8, 1, 1, 2)], 21),
}


def by_hand(answer) -> str:
    """`answer(layers, size)`: multiply-adds and receptive field (pixels) of a stack of convolutions."""
    for name, (layers, size) in STACKS.items():
        result = answer(layers, size)
        demand(isinstance(result, (tuple, list)) and len(result) == 2,
               f"wanted the pair (multiply-adds, receptive field) but received {result!r:.60}")
        macs, field = as_number(result[0], "the multiply-adds"), as_number(result[1], "the receptive field")
        wanted_macs, wanted_field = _counted(layers, size)
        what = f"for {name}"
        if macs != wanted_macs:
            demand(macs != 2 * wanted_macs, f"{what} twice too much: one multiply-add is two FLOPs, count it once")
            demand(macs != _macs(layers, size, groups=False), f"{what} groups are ignored: an output channel sees "
                                                              "in / groups input channels")
            demand(macs != _macs(layers, size, strides=False), f"{what} strides are ignored: the output is smaller "
                                                               "than the input")
            demand(macs != _macs(layers, size, before=True), f"{what} the size before the layer is used; an output is "
                                                             "computed for each place after it")
            demand(False, f"{what} hooks count {wanted_macs} multiply-adds, you {macs:g}")
        if field != wanted_field:
            demand(field != _field(layers, jumps=False), f"{what} strides widen what later layers see: each step of a "
                                                         "later layer is worth the product of the strides before it")
            demand(field != _field(layers, late=True), f"{what} a layer's own stride counts for the layers after it, "
                                                       "not for itself")
            demand(False, f"{what} the gradient reaches over {wanted_field} pixels, yours is {field:g}; the first "
                          "pixel counts too")
    return "hooks count the same multiply-adds and the gradient reaches the same field, for strides, groups and 1 x 1"


def fold(answer) -> str:
    """`answer(conv, bn)`: one convolution with a bias that does what both did in evaluation mode."""
    for bias in (False, True):
        conv = nn.Conv2d(6, 8, 3, stride=2, padding=1, groups=2, bias=bias)
        bn = nn.BatchNorm2d(8).eval()
        with torch.no_grad():
            conv.weight.copy_(randn(8, 3, 3, 3, seed=1))
            bn.weight.copy_(randn(8, seed=2)), bn.bias.copy_(randn(8, seed=3))
            bn.running_mean.copy_(randn(8, seed=4)), bn.running_var.copy_(randn(8, seed=5).square() * 1e-4)
        x, before = randn(2, 6, 11, 9, seed=6, dtype=torch.float32), copy.deepcopy((conv, bn))
        with torch.no_grad():
            wanted = bn(conv(x))
            folded = answer(conv, bn)
            demand(isinstance(folded, nn.Conv2d), f"wanted a Conv2d but received a {type(folded).__name__}")
            demand(all(torch.equal(a, b) for old, new in zip(before, (conv, bn))
                       for a, b in zip(old.state_dict().values(), new.state_dict().values())),
                   "the layers that were given have been changed; work on a copy")
            demand(folded.bias is not None, "the folded convolution has no bias: the shift has nowhere to go")
            try:
                got = folded(x)
            except RuntimeError as broken:
                raise Mistake(f"the folded convolution does not take the input: {broken}") from None
            demand(got.shape == wanted.shape, f"the output is {tuple(got.shape)}, not {tuple(wanted.shape)}: keep "
                                              "stride, padding and groups")
            _name_the_fold(folded, before, x, got, wanted)
        saved = sum(p.numel() for m in before for p in m.parameters()) - sum(p.numel() for p in folded.parameters())
        demand(saved == (16 if bias else 8), f"{saved} parameters are saved; wanted {16 if bias else 8}")
    return "outputs within 1e-5 with and without a bias, and the parameters of the BatchNorm are gone"


def _name_the_fold(folded, layers, x, got, wanted) -> None:
    conv, bn = layers
    scale = wanted.abs().max()
    if error(got, wanted) <= 1e-5 * max(1.0, float(scale)):
        return
    no_eps, old_bias = copy.deepcopy(bn), 0 if conv.bias is None else conv.bias
    no_eps.eps = 1e-30                      # torch 2.11 refuses 0
    factor = bn.weight / (bn.running_var + bn.eps).sqrt()
    named = {"eps is missing under the root; with small variances that is a lot": no_eps(conv(x)),
             "the bias of the convolution must be scaled too": got.new_tensor(0) if conv.bias is None else
             wanted - ((factor - 1) * old_bias)[None, :, None, None],
             "the running mean is not taken off": wanted + (factor * bn.running_mean)[None, :, None, None],
             "the weight of the BatchNorm is missing": (wanted - bn.bias[:, None, None]) / bn.weight[:, None, None]
             + bn.bias[:, None, None]}
    for mistake, planted in named.items():
        demand(planted.shape != got.shape or error(got, planted) > 1e-4 * float(scale), mistake)
    demand(False, f"the output is off by {error(got, wanted):.1e}; wanted at most 1e-5 of its size")


def _convolutions(layers):
    return [nn.Conv2d(i, o, k, stride=s, padding=k // 2, groups=g, bias=False) for i, o, k, s, g in layers]


def _counted(layers, size: int) -> tuple[int, int]:
    """Multiply-adds by hooks on the real layers; receptive field by the gradient of one output in the middle."""
    total = []
    stack = nn.Sequential(*_convolutions(layers))
    for conv in stack:
        conv.weight.data.fill_(1.0)
        conv.register_forward_hook(lambda conv, _, out: total.append(out[0].numel() * conv.weight[0].numel()))
    stack(torch.zeros(1, layers[0][0], size, size))
    side = 2 * _field(layers) + 1
    wide = torch.zeros(1, layers[0][0], side, side, requires_grad=True)
    out = stack(wide)
    middle = out.shape[-1] // 2
    reached = torch.autograd.grad(out[0, :, middle, middle].sum(), wide)[0][0].abs().sum(0).amax(0) > 0
    return sum(total[:len(layers)]), int(reached.sum())


def _macs(layers, size: int, groups=True, strides=True, before=False) -> int:
    total = 0
    for i, o, k, s, g in layers:
        after = (size + 2 * (k // 2) - k) // s + 1 if strides else size
        total += (size if before else after) ** 2 * o * (i // g if groups else i) * k * k
        size = after
    return total


def _field(layers, jumps=True, late=False) -> int:
    field, jump = 1, 1
    for _, _, k, s, _ in layers:
        field += (k - 1) * ((jump * s if late else jump) if jumps else 1)
        jump *= s
    return field


EXERCISES = {"resnet50.by_hand": Exercise(by_hand), "resnet50.fold": Exercise(fold)}
