"""Performer equals its definition, tends to softmax attention, and draws its features rightly."""

import math
import warnings

import pytest
import torch
from parts import build, tokens

from medbench.attention.performer import orthogonal_rows


def qkv(num_tokens=35, heads=3, d=4, scale=1.0):
    return (tokens(num_tokens=num_tokens, dim=heads * d, seed=s, scale=scale).unflatten(2, (heads, d)).transpose(1, 2)
            for s in (1, 2, 3))


def phi(x, W):
    """The features by their definition, nothing taken out."""
    x = x * x.shape[-1] ** -0.25
    return (x @ W.transpose(-2, -1) - x.square().sum(-1, keepdim=True) / 2).exp() / W.shape[-2] ** 0.5


@pytest.mark.parametrize("setting, eps", [("faithful", 0.0), ("seed", 1e-6)])
def test_equals_its_definition(setting, eps):
    performer, (q, k, v) = build("performer", setting=setting), qkv()
    phi_q, phi_k = phi(q, performer.W), phi(k, performer.W)
    A = phi_q @ phi_k.transpose(-2, -1)                                       # the N x N matrix it never forms
    torch.testing.assert_close(performer.mix(q, k, v), A @ v / (A.sum(-1, keepdim=True) + eps), rtol=0, atol=1e-12)
    torch.testing.assert_close(performer.log_features(q).exp(), phi_q, rtol=1e-12, atol=0)


def test_equals_the_package_performer_pytorch_with_copied_features_and_without_its_epsilon():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)                   # of its imports
        from performer_pytorch.performer_pytorch import linear_attention, softmax_kernel
    performer, (q, k, v) = build("performer"), qkv()
    phi_q, phi_k = (softmax_kernel(x, projection_matrix=performer.W, is_query=x is q, eps=0.0) for x in (q, k))
    expected = linear_attention(phi_q, phi_k, v)
    torch.testing.assert_close(performer.mix(q, k, v), expected, rtol=0, atol=1e-12)


def test_converges_to_softmax_attention():
    """d = 8, inputs at half scale: 64 times the features, under a quarter of the error (an eighth, if all is right)."""
    q, k, v = qkv(heads=1, d=8, scale=0.5)
    exact = (q @ k.transpose(-2, -1) / math.sqrt(8)).softmax(-1) @ v

    def error(r):
        draws = [build("performer", dim=8, heads=1, r=r, seed=seed).mix(q, k, v) - exact for seed in range(4)]
        return torch.stack(draws).square().mean().sqrt()

    assert error(16384) < error(256) / 4
    assert error(16384) < 0.01


def test_features_are_unbiased():
    q, k = (torch.randn(8, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in (1, 2))
    draws = []
    for seed in range(400):
        performer = build("performer", dim=8, heads=1, r=8, seed=seed)
        draws.append((performer.log_features(q[None]).exp() * performer.log_features(k[None]).exp()).sum())
    draws = torch.stack(draws)
    standard_error = draws.std() / len(draws) ** 0.5
    assert (draws.mean() - (q @ k / math.sqrt(8)).exp()).abs() < 4 * standard_error


def test_rows_are_orthogonal_and_as_long_as_gaussian_vectors():
    rows = orthogonal_rows(11, 4).double()
    for block in rows.split(4):
        torch.testing.assert_close(block @ block.T, torch.eye(len(block)).double(), rtol=0, atol=1e-6)
    lengths = build("performer", dim=32, heads=1, r=4000).W.norm(dim=1)
    assert abs(lengths.square().mean() - 32) < 1 and 0.45 < lengths.var() < 0.55  # that of chi_32 is 0.496


def test_directions_are_uniform_over_rotations():
    """QR without the signs of R puts a definite sign on the diagonal: its mean would be far from 0."""
    generator = torch.Generator().manual_seed(0)
    diagonals = torch.stack([orthogonal_rows(4, 4, generator).diagonal() for _ in range(1000)])
    assert diagonals.mean(0).abs().max() < 4 * 0.5 / 1000**0.5                # 4 standard errors of a coordinate


def test_features_are_drawn_once_saved_and_no_parameter():
    performer = build("performer")
    before = performer.W.clone()
    performer.train()(tokens()).sum().backward()
    assert torch.equal(performer.W, before)
    assert "W" in performer.state_dict() and "W" not in dict(performer.named_parameters())
    assert performer.W.shape == (11, 4)


def test_the_study_has_a_matrix_per_head_with_rows_of_length_sqrt_r():
    performer = build("performer", setting="seed", dim=96, r=16)
    assert performer.W.shape == (3, 16, 32)
    torch.testing.assert_close(performer.W.norm(dim=-1), torch.full((3, 16), 4.0).double(), rtol=1e-6, atol=0)
    assert not torch.equal(performer.W[0], performer.W[1])


def test_default_number_of_features_is_d_ln_d():
    assert build("performer", dim=96, r=None).r == 110


def test_far_keys_do_not_divide_by_zero():
    """By the plain definition every feature underflows here and 0/0 follows; the quotient itself is harmless."""
    performer, (q, k, v) = build("performer"), qkv(scale=300.0)
    k = k + 4000
    plain = phi(q, performer.W) @ phi(k, performer.W).transpose(-2, -1)
    assert (plain.sum(-1) == 0).any()
    mixed = performer.mix(q, k, v)
    assert mixed.isfinite().all() and mixed.abs().max() <= v.abs().max()


def test_features_are_float32_under_autocast():
    """Exponents reach tens here: rounded to bf16 they would move the features by tens of per cent."""
    performer, (q, k, v) = build("performer", dim=96, r=110), qkv(d=32, scale=2.0)
    exact = performer.mix(q, k, v)
    q, k, v = (x.bfloat16() for x in (q, k, v))
    reference = performer.mix(q.double(), k.double(), v.double())             # the same rounded inputs
    with torch.autocast("cpu", torch.bfloat16):
        rough = performer.float().mix(q, k, v)
    assert rough.dtype == torch.bfloat16 and (reference - exact).abs().max() > 1e-3
    assert (rough.double() - reference).abs().max() < 0.01 * reference.abs().max()
