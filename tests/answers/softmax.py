"""Planted answers to the exercises of chapter 03."""

import math

import torch


def with_running_maximum(q, k, v, block):
    q = q / math.sqrt(q.shape[-1])
    top = q.new_full(q.shape[:-1], -math.inf)
    total, out = torch.zeros_like(top), torch.zeros_like(q)
    for kb, vb in zip(k.split(block, dim=-2), v.split(block, dim=-2)):
        logits = q @ kb.mT
        new = torch.maximum(top, logits.amax(-1))
        weights, shrink = (logits - new[..., None]).exp(), (top - new).exp()
        total = total * shrink + weights.sum(-1)
        out = out * shrink[..., None] + weights @ vb
        top = new
    return out / total[..., None]


def with_logsumexp(q, k, v, block):
    """Two passes: the normaliser first, then the sum."""
    starts = range(0, k.shape[-2], block)
    q = q * q.shape[-1] ** -0.5
    norm = torch.full_like(q[..., 0], -math.inf)
    for s in starts:
        norm = torch.logaddexp(norm, (q @ k[..., s:s + block, :].mT).logsumexp(-1))
    return sum((q @ k[..., s:s + block, :].mT - norm[..., None]).exp() @ v[..., s:s + block, :] for s in starts)


def in_full(q, k, v, block):
    return (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1) @ v


def without_scale(q, k, v, block):
    return with_running_maximum(q * math.sqrt(q.shape[-1]), k, v, block)


def a_softmax_per_block(q, k, v, block):
    return sum(in_full(q, kb, vb, block) for kb, vb in zip(k.split(block, -2), v.split(block, -2)))


def drops_the_rest(q, k, v, block):
    whole = k.shape[-2] - k.shape[-2] % block if block < k.shape[-2] else k.shape[-2]
    return with_running_maximum(q, k[..., :whole, :], v[..., :whole, :], block)


def without_maximum(q, k, v, block):
    q = q / math.sqrt(q.shape[-1])
    parts = [((q @ kb.mT).exp(), vb) for kb, vb in zip(k.split(block, -2), v.split(block, -2))]
    return sum(w @ vb for w, vb in parts) / sum(w.sum(-1, keepdim=True) for w, _ in parts)


def forgets_to_rescale(q, k, v, block):
    q = q / math.sqrt(q.shape[-1])
    total, out, top = 0, 0, q.new_full((*q.shape[:-1], 1), -math.inf)
    for kb, vb in zip(k.split(block, -2), v.split(block, -2)):
        top = torch.maximum(top, (q @ kb.mT).amax(-1, keepdim=True))
        weights = (q @ kb.mT - top).exp()
        total, out = total + weights.sum(-1, keepdim=True), out + weights @ vb
    return out / total


RIGHT = {
    "softmax.streaming": [with_running_maximum, with_logsumexp],
    "softmax.crossover_tokens": [lambda C: 6 * C, lambda C: (4 * C**2 + 8 * C**2) / (2 * C)],
}
WRONG = {
    "softmax.streaming": [(in_full, "forbids"), (without_scale, "1/sqrt(d)"),
                          (a_softmax_per_block, "common normaliser"), (drops_the_rest, "keys are dropped"),
                          (without_maximum, "running maximum before exp"), (forgets_to_rescale, "must be scaled down")],
    "softmax.crossover_tokens": [(lambda C: 2 * C, "MLP is missing"), (lambda C: 4 * C, "projections (qkv"),
                                 (lambda C: 12 * C, "two products"), (lambda C: 5.5 * C, "proj"),
                                 (lambda C: 6, "counting gives")],
}
