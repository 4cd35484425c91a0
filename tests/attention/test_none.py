"""The control mixes nothing."""

import torch
from parts import DIM, build, tokens


def test_is_two_linear_maps_of_each_token():
    control, x = build("none"), tokens()
    expected = (x @ control.v.weight.T + control.v.bias) @ control.proj.weight.T + control.proj.bias
    torch.testing.assert_close(control(x), expected, rtol=0, atol=1e-12)


def test_no_token_reaches_another():
    control, x = build("none"), tokens(batch=1)
    changed = x.clone()
    changed[0, 7] += 1
    moved = (control(changed) - control(x)).abs().sum(-1)[0] > 0
    assert moved.nonzero().flatten().tolist() == [7]


def test_has_no_query_and_no_key():
    assert sum(p.numel() for p in build("none").parameters()) == 2 * (DIM**2 + DIM)
