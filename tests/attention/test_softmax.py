"""Softmax attention equals timm's, its own equation and both of its computations."""

import pytest
import timm.layers
import torch
import torch.nn.functional as F
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


@pytest.mark.parametrize("dtype, gradient, keys, biases, fused", [
    (torch.float32, False, 35, 0, True), (torch.float32, True, 35, 0, True), (torch.float32, False, 35, 2, True),
    (torch.float32, True, 35, 2, False), (torch.float32, True, 35, 1, False), (torch.float32, False, 35, 1, True),
    (torch.bfloat16, False, 156, 2, True), (torch.bfloat16, False, 157, 2, False),
    (torch.bfloat16, False, 157, 0, False), (torch.bfloat16, False, 9_986, 0, False),
    (torch.bfloat16, False, 9_987, 0, True), (torch.bfloat16, True, 35, 0, False),
    (torch.bfloat16, True, 19_972, 0, False), (torch.bfloat16, True, 19_973, 0, True)])      # 4 * 3 * 35 logits a key
def test_fused_or_written_out_it_is_the_equation(dtype, gradient, keys, biases, fused, monkeypatch):
    """With a bias for every image in turn, and without; on a CPU, where the two ways differ in speed."""
    calls, whole = [], F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *a, **k: calls.append(1) or whole(*a, **k))
    N = 35
    q, k, v = (tokens(batch=4, num_tokens=n, seed=s).unflatten(2, (3, 4)).transpose(1, 2).to(dtype)
               for s, n in ((1, N), (2, keys), (3, keys)))
    b = torch.randn(biases, 3, N, keys, generator=torch.Generator().manual_seed(4)).to(dtype) if biases else None
    exact = (q.double() @ k.double().transpose(-2, -1) / 2)
    exact = (exact + b.double().repeat(4 // biases, 1, 1, 1) if biases else exact).softmax(-1) @ v.double()
    if gradient:
        (b if biases and dtype == torch.float32 else q).requires_grad_()
    mixed = attend(q, k, v, bias=b)
    assert bool(calls) == fused and mixed.requires_grad == gradient
    torch.testing.assert_close(mixed.detach().double(), exact, rtol=0, atol=1e-5 if dtype == torch.float32 else 0.03)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_computations_drop_weights_and_keep_their_mean(dtype):
    q, k = (tokens(num_tokens=35, seed=s).unsqueeze(1).to(dtype).requires_grad_() for s in (1, 2))
    v = torch.ones_like(k)
    torch.manual_seed(0)
    dropped = attend(q, k, v, drop=0.4).float()
    assert dropped.std(0).max() > 0.05 and (dropped.mean() - 1).abs() < 0.1
