"""Softmax attention equals timm's, its own equation and both of its computations."""

import pytest
import timm.layers
import torch
from parts import DIM, GRID, HEADS, build, tokens

from medbench.attention.base import attend


def test_equals_timm_with_its_weights():
    ours = build("softmax", grid=(5, 7))
    theirs = timm.layers.Attention(DIM, HEADS, qkv_bias=True).double().eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x = tokens(num_tokens=35)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-12)


def test_equals_the_equation_token_by_token():
    mechanism = build("softmax")
    q, k, v = mechanism.heads(tokens())
    mixed = mechanism.mix(q, k, v)
    weights = torch.stack([(k[1, 2] @ q[1, 2, i] / 2).softmax(0) for i in range(GRID[0] * GRID[1])])  # sqrt(4) = 2
    torch.testing.assert_close(mixed[1, 2], weights @ v[1, 2], rtol=0, atol=1e-12)


@pytest.mark.parametrize("with_bias", [False, True])
def test_the_written_out_computation_is_the_fused_one(with_bias):
    """bf16 with a gradient on a CPU takes the written-out path: within bf16's three digits of the fused one."""
    q, k, v = (tokens(num_tokens=35, seed=s).unflatten(2, (3, 4)).transpose(1, 2).bfloat16() for s in (1, 2, 3))
    bias = torch.randn(1, 3, 35, 35, generator=torch.Generator().manual_seed(4)).bfloat16() if with_bias else None
    fused, written = attend(q, k, v, bias=bias), attend(q.requires_grad_(), k, v, bias=bias)
    assert written.requires_grad
    torch.testing.assert_close(fused, written.detach(), rtol=0, atol=0.03)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_computations_drop_weights_and_keep_their_mean(dtype):
    q, k = (tokens(num_tokens=35, seed=s).to(dtype).requires_grad_() for s in (1, 2))
    v = torch.ones_like(k)
    torch.manual_seed(0)
    dropped = attend(q, k, v, drop=0.4).float()
    assert dropped.std(0).max() > 0.05 and (dropped.mean() - 1).abs() < 0.1
