"""Fastformer equals a slow loop written from the paper."""

import pytest
import torch
from parts import build, tokens

GRID, N, HEADS, D = (5, 7), 35, 3, 4


@torch.no_grad()
def loop(q, k, v, w_q, w_k, T=None, raw_keys=False):
    """One head of the paper's section 3.2, token by token; `q`, `k`, `v` are `(N, d)`."""
    scale = D**-0.5
    alpha = torch.tensor([torch.exp(w_q @ q[i] * scale) for i in range(N)], dtype=q.dtype)
    q_bar = sum(alpha[i] / alpha.sum() * q[i] for i in range(N))
    p = [q_bar * k[i] for i in range(N)]
    beta = torch.tensor([torch.exp(w_k @ p[i] * scale) for i in range(N)], dtype=q.dtype)
    k_bar = sum(beta[i] / beta.sum() * (k[i] if raw_keys else p[i]) for i in range(N))
    if T is None:
        return torch.stack([k_bar * v[i] for i in range(N)])
    return torch.stack([T(k_bar * v[i]) + q[i] for i in range(N)])


def large_weights(mechanism):
    """Weights that make both softmaxes far from uniform."""
    with torch.no_grad():
        for parameter in (mechanism.w_q, mechanism.w_k):
            parameter.normal_(std=3)
    return mechanism


@pytest.mark.parametrize("setting", ["faithful", "seed"])
def test_equals_the_slow_loop(setting):
    mechanism = large_weights(build("fastformer", grid=GRID, setting=setting))
    q, k, v = mechanism.heads(3 * tokens(num_tokens=N))
    mixed = mechanism.mix(q, k, v)
    T = getattr(mechanism, "transform", None)
    for b in range(2):
        for h in range(HEADS):
            args = q[b, h], k[b, h], v[b, h], mechanism.w_q[h], mechanism.w_k[h]
            torch.testing.assert_close(mixed[b, h], loop(*args, T, raw_keys=setting == "seed"), rtol=0, atol=1e-12)
            assert (mixed[b, h] - loop(*args, T, raw_keys=setting != "seed")).abs().max() > 1e-3


def test_the_study_adds_the_queries_after_proj():
    mechanism = large_weights(build("fastformer", grid=GRID, setting="seed"))
    x = tokens(num_tokens=N)
    q, k, v = mechanism.heads(x)
    flat = q.transpose(1, 2).reshape(2, N, HEADS * D)
    expected = mechanism.proj(mechanism.mix(q, k, v).transpose(1, 2).reshape(2, N, HEADS * D)) + flat
    torch.testing.assert_close(mechanism(x), expected, rtol=0, atol=1e-12)


def test_values_never_travel():
    mechanism = large_weights(build("fastformer", grid=GRID))
    q, k, v = (x.detach() for x in mechanism.heads(tokens(batch=1, num_tokens=N)))
    J = torch.autograd.functional.jacobian(lambda v: mechanism.mix(q, k, v).sum((0, 1, 3)), v).abs().sum((1, 2, 4))
    assert torch.equal(J > 0, torch.eye(N, dtype=torch.bool))
