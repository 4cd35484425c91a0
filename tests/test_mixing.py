"""The mixing matrix equals the full Jacobian, and its summaries have the values that can be worked out by hand."""

import math

import pytest
import torch
from torch import nn

from medbench import mixing

torch.set_num_threads(1)


def tokens(n=35, c=12, seed=0):
    return torch.randn(n, c, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def averaging(x):
    return x.mean(1, keepdim=True).expand_as(x)


def attention(x, scale=1.0):
    return ((scale * x) @ x.mT / math.sqrt(x.shape[-1])).softmax(-1) @ x


def test_matrix_is_the_norm_of_the_jacobian_blocks():
    x = tokens(7, 3)
    jacobian = torch.autograd.functional.jacobian(lambda v: attention(v[None])[0], x)       # (N, C, N, C)
    wanted = jacobian.square().sum((1, 3)).sqrt()
    torch.testing.assert_close(mixing.matrix(attention, x, chunk=5), wanted, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(mixing.matrix(attention, x, rows=[4, 1]), wanted[[4, 1]], rtol=1e-12, atol=1e-13)


def test_matrix_of_a_fixed_mixing_is_that_mixing():
    x = tokens(6, 4)
    weights = torch.rand(6, 6, dtype=torch.float64)
    torch.testing.assert_close(mixing.matrix(lambda v: weights @ v, x), weights * 2)     # 2 = Frobenius norm of I_4


def test_no_mixing_stays_on_the_diagonal():
    m = mixing.matrix(nn.Linear(12, 5).double(), tokens())
    assert m.shape == (35, 35)
    assert torch.count_nonzero(m - m.diagonal().diag()) == 0
    assert mixing.mean_distance(m, (5, 7)) == 0
    assert mixing.share_of_self(m) == 1
    assert mixing.effective_rank(m) == pytest.approx(35)


def test_averaging_has_rank_one_and_the_mean_distance_of_the_grid():
    m = mixing.matrix(averaging, tokens())
    assert mixing.effective_rank(m) == pytest.approx(1)
    assert mixing.share_of_self(m) == pytest.approx(1 / 35)
    by_hand = sum(math.hypot(a // 7 - b // 7, a % 7 - b % 7) for a in range(35) for b in range(35)) / 35**2
    assert mixing.mean_distance(m, (5, 7)) == pytest.approx(by_hand)
    rows = [3, 30]
    one = mixing.mean_distance(m[rows], (5, 7), rows=rows)
    assert one == pytest.approx(float(mixing.distances((5, 7))[rows].mean()))


def test_wrong_sizes_are_refused_with_what_came():
    with pytest.raises(ValueError, match=r"one image.*\(2, 35, 12\)"):
        mixing.matrix(averaging, tokens()[None].repeat(2, 1, 1))
    with pytest.raises(ValueError, match=r"has 35, counted from 0"):
        mixing.matrix(averaging, tokens(), rows=[35])
    with pytest.raises(ValueError, match=r"\(5, 5\) grid wants"):
        mixing.mean_distance(torch.ones(35, 35), (5, 5))


def test_limits_tell_equivariant_from_fixed():
    x = tokens()[None]
    table = mixing.limits(attention, x)
    assert list(table.answer) == ["yes", "yes", "35 of 35"]
    projection = torch.randn(9, 35, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def fixed(v):
        if v.shape[1] != 35:
            raise ValueError("built for 35 tokens")
        return (v @ (projection @ v).mT).softmax(-1) @ (projection @ v)

    table = mixing.limits(fixed, x)
    assert table.answer[0] == "no" and table.error[0] > 0.01
    assert table.answer[1] == "refused: built for 35 tokens"
    assert list(mixing.limits(lambda v: 2 * v, x).answer) == ["yes", "yes", "1 of 35"]
    assert mixing.limits(lambda v: v.sum(1, keepdim=True).expand_as(v), x).answer[1] == "no"


def test_tokens_into_a_module():
    inner = nn.Linear(4, 4)
    model = nn.Sequential(nn.Linear(3, 4), inner)
    images = torch.randn(2, 5, 3)
    torch.testing.assert_close(mixing.tokens_into(model, inner, images), model[0](images).detach())
    with pytest.raises(ValueError, match="never calls this Linear"):
        mixing.tokens_into(model, nn.Linear(4, 4), images)
    assert not inner._forward_pre_hooks
