"""Planted answers to the exercises of chapter 09."""

import torch
from torch import nn


def forwards(layers, size):
    macs, field, jump = 0, 1, 1
    for c_in, c_out, kernel, stride, groups in layers:
        size = (size - 1) // stride + 1
        macs += size * size * c_out * (c_in // groups) * kernel**2
        field += (kernel - 1) * jump
        jump *= stride
    return macs, field


def backwards(layers, size):
    """The field from the last layer to the first; the multiply-adds from tensors on the meta device."""
    field = 1
    for _, _, kernel, stride, _ in reversed(layers):
        field = (field - 1) * stride + kernel
    x, macs = torch.empty(1, layers[0][0], size, size, device="meta"), 0
    for c_in, c_out, kernel, stride, groups in layers:
        conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, device="meta")
        x = conv(x)
        macs += x.numel() * conv.weight[0].numel()
    return macs, field


def without(what):
    def answer(layers, size):
        macs, field, jump = 0, 1, 1
        for c_in, c_out, kernel, stride, groups in layers:
            after = size if what == "strides" else (size - 1) // stride + 1
            macs += after**2 * c_out * (c_in if what == "groups" else c_in // groups) * kernel**2
            size, before, jump = after, jump, jump * stride
            field += (kernel - 1) * {"jumps": 1, "late": jump}.get(what, before)
        return macs, field
    return answer


def folded(conv, bn, eps=True, mean=True, gamma=True, scale_bias=True):
    new = nn.Conv2d(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding,
                    groups=conv.groups)
    with torch.no_grad():
        scale = (bn.weight if gamma else 1) / torch.sqrt(bn.running_var + (bn.eps if eps else 0))
        old = torch.zeros_like(bn.bias) if conv.bias is None else conv.bias
        new.weight.copy_(conv.weight * scale[:, None, None, None])
        new.bias.copy_(bn.bias + (old * (scale if scale_bias else 1)) - (bn.running_mean * scale if mean else 0))
    return new


def fused_by_torch(conv, bn):
    return torch.nn.utils.fuse_conv_bn_eval(conv.eval(), bn)


def in_place(conv, bn):
    new = folded(conv, bn)
    conv.weight.data.copy_(new.weight)
    return new


RIGHT = {"resnet50.by_hand": [forwards, backwards], "resnet50.fold": [folded, fused_by_torch]}
WRONG = {
    "resnet50.by_hand": [(without("groups"), "groups are ignored"), (without("strides"), "strides are ignored"),
                         (without("jumps"), "strides widen"), (without("late"), "for the layers after it"),
                         (lambda layers, size: (2 * forwards(layers, size)[0], forwards(layers, size)[1]), "two FLOPs"),
                         (lambda layers, size: (forwards(layers, size)[0], forwards(layers, size)[1] - 1),
                          "first pixel"),
                         (lambda layers, size: forwards(layers, size)[0], "wanted the pair")],
    "resnet50.fold": [(lambda conv, bn: folded(conv, bn, eps=False), "eps is missing"),
                      (lambda conv, bn: folded(conv, bn, mean=False), "running mean"),
                      (lambda conv, bn: folded(conv, bn, gamma=False), "weight of the BatchNorm is missing"),
                      (lambda conv, bn: folded(conv, bn, scale_bias=False), "scaled too"),
                      (in_place, "have been changed"), (lambda conv, bn: conv, "no bias"),
                      (lambda conv, bn: nn.Sequential(conv, bn), "wanted a Conv2d")],
}
