"""Exercises of chapter 06: additive attention that pools the right keys, and who hears a value."""

from __future__ import annotations

import math

import torch

from .judging import Exercise, as_tensor, demand, error, randn


def attention(answer) -> str:
    """`answer(q, k, v, w_q, w_k, transform)`: Fastformer's mixing, equal to a slow loop written from the paper."""
    torch.manual_seed(0)
    q, k, v = (randn(2, 3, 7, 4, seed=s) for s in (1, 2, 3))
    w_q, w_k = 2 * randn(3, 4, seed=4), 2 * randn(3, 4, seed=5)
    M, b = randn(4, 4, seed=6), randn(4, seed=7)

    def transform(x):
        return x @ M.mT + b

    wanted = _slow(q, k, v, w_q, w_k, transform)
    got = as_tensor(answer(q, k, v, w_q, w_k, transform), wanted)
    if error(got, wanted) > 1e-12:
        planted = {
            "the second pooling takes raw keys: kbar is the weighted sum of p = k * qbar": {"raw_keys": True},
            "the query is not added at the end": {"residual": False},
            "the logits lack the factor 1/sqrt(d)": {"scale": 1.0},
            "the transform is missing": {"transformed": False},
            "the query is added before the transform; it belongs after it": {"early": True},
            "the softmax runs over the channels; alpha and beta must sum to 1 over the tokens": {"axis": -1},
            "the first weights alpha are used for both poolings; beta comes from p": {"same_weights": True},
        }
        for mistake, variant in planted.items():
            demand(error(got, _variant(q, k, v, w_q, w_k, transform, **variant)) > 1e-9, mistake)
    demand(error(got, wanted) <= 1e-12, f"off by {error(got, wanted):.1e} from a slow loop over tokens; wanted 1e-12")
    return "equal to a slow loop over tokens to 1e-12"


def value_pattern(answer) -> str:
    """`answer(N)`: N x N booleans, True where output i depends on v_j while all q and k stay fixed: the identity."""
    for tokens in (5, 9):
        like = torch.empty(tokens, tokens)
        got = as_tensor(answer(tokens), like, "the pattern").bool()
        wanted = _measured_pattern(tokens)
        demand(not got.all(), "not every output hears every value: kbar, the one global vector, is made of q, k")
        demand(got.any(), "some output must depend on v_j: look at kbar * v")
        demand(not torch.equal(got, torch.ones(tokens, tokens).tril().bool()), "there is no order of tokens here: "
                                                                               "nothing is causal")
        demand(torch.equal(got, wanted), f"for N = {tokens} the Jacobian with respect to v has "
                                         f"{int(wanted.sum())} non-zero entries, yours {int(got.sum())}; or they lie "
                                         "elsewhere")
    return "the identity, as the Jacobian of the real layer has it: values never travel"


def _slow(q, k, v, w_q, w_k, transform):
    """The paper's equations 3 to 7, one token at a time."""
    out = torch.empty_like(q)
    for image in range(q.shape[0]):
        for head in range(q.shape[1]):
            Q, K, V = q[image, head], k[image, head], v[image, head]
            q_bar = _pool(Q, Q, w_q[head])
            p = torch.stack([key * q_bar for key in K])
            k_bar = _pool(p, p, w_k[head])
            out[image, head] = torch.stack([transform(k_bar * value) + query for value, query in zip(V, Q)])
    return out


def _pool(scored, pooled, w):
    weights = [math.exp(float(w @ x) / math.sqrt(len(w))) for x in scored]
    return sum(weight * x for weight, x in zip(weights, pooled)) / sum(weights)


def _variant(q, k, v, w_q, w_k, transform, raw_keys=False, residual=True, scale=None, transformed=True, axis=-2,
             early=False, same_weights=False):
    scale = q.shape[-1] ** -0.5 if scale is None else scale

    def weights(x, w):
        if axis == -1:
            return (x * w[:, None] * scale).softmax(-1)
        return (x @ w[..., None] * scale).softmax(-2)

    q_bar = (weights(q, w_q) * q).sum(-2, keepdim=True)
    p = k * q_bar
    k_bar = ((weights(q, w_q) if same_weights else weights(p, w_k)) * (k if raw_keys else p)).sum(-2, keepdim=True)
    mixed = k_bar * v
    if early:
        return transform(mixed + q)
    mixed = transform(mixed) if transformed else mixed
    return mixed + q if residual else mixed


def _measured_pattern(tokens: int):
    from ... import mixing
    from ...attention import ATTENTION

    layer = ATTENTION["fastformer"](8, 2, (1, tokens)).double()
    q, k, v = (randn(1, 2, tokens, 4, seed=s) for s in (1, 2, 3))

    def of_values(x):
        heads = x.unflatten(-1, (2, 4)).transpose(1, 2)
        return layer.merge_heads(layer.mix(q.expand_as(heads), k.expand_as(heads), heads))

    return mixing.matrix(of_values, v.transpose(1, 2).flatten(2)) > 1e-12


EXERCISES = {"fastformer.attention": Exercise(attention), "fastformer.value_pattern": Exercise(value_pattern)}
