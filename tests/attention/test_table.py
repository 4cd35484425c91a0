"""Claims for the whole table of mechanisms: shapes, symmetry, independence, cost, numbers that stay finite."""

import copy

import pytest
import torch
from parts import DIM, GRID, N, build, tokens
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from medbench.attention import ATTENTION
from medbench.config import CONTROL, MECHANISMS, SETTINGS

BOTH = [(name, setting) for name in ATTENTION for setting in SETTINGS]
EQUIVARIANT = ("softmax", "performer", "fastformer", "xca", "none")


def test_the_table_names_every_mechanism_once():
    assert set(ATTENTION) == {*MECHANISMS, CONTROL}


@pytest.mark.parametrize("name, setting", BOTH)
def test_maps_tokens_to_tokens(name, setting):
    x = tokens(batch=5)
    y = build(name, setting=setting, layer_index=1)(x)
    assert y.shape == x.shape and y.dtype == x.dtype and y.isfinite().all()
    assert (y - x).abs().max() > 1e-3


@pytest.mark.parametrize("name, setting", BOTH)
def test_images_of_a_batch_do_not_meet(name, setting):
    mechanism, x = build(name, setting=setting, layer_index=1), tokens(batch=3)
    alone = torch.cat([mechanism(image[None]) for image in x])
    torch.testing.assert_close(mechanism(x), alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name, setting", BOTH)
def test_only_linformer_and_windows_know_the_order_of_tokens(name, setting):
    mechanism, x = build(name, setting=setting), tokens()
    order = torch.randperm(N, generator=torch.Generator().manual_seed(2))
    error = (mechanism(x[:, order]) - mechanism(x)[:, order]).abs().max()
    assert error <= 1e-12 if name in EQUIVARIANT else error > 1e-4


@pytest.mark.parametrize("name", ATTENTION)
def test_a_token_twice_counts_as_once_where_tokens_are_averaged(name):
    """Softmax, Performer, Fastformer and XCA see the distribution of tokens and not their number."""
    x = tokens()
    once, twice = build(name), build(name, grid=(GRID[0], 2 * GRID[1]))
    shared = {k: v for k, v in once.state_dict().items() if v.shape == twice.state_dict()[k].shape}
    twice.load_state_dict(shared, strict=False)
    error = (twice(x.repeat(1, 2, 1))[:, :N] - once(x)).abs().max()
    assert error <= 1e-12 if name in EQUIVARIANT else error > 1e-6


@pytest.mark.parametrize("name, setting", BOTH)
def test_counted_cost_is_the_closed_form(name, setting):
    for grid in ((6, 9), (12, 12), (3, 6)):
        num_tokens = grid[0] * grid[1]
        mechanism = build(name, grid=grid, setting=setting, layer_index=1).to("meta")
        with FlopCounterMode(display=False) as counter:
            mechanism(torch.empty(1, num_tokens, DIM, dtype=torch.float64, device="meta"))
        projections = mechanism.projection_macs(num_tokens)
        assert counter.get_total_flops() == 2 * (projections + mechanism.mixing_macs(num_tokens))
        if name != "linformer" or setting == "seed":
            assert projections == (2 if name == "none" else 4) * num_tokens * DIM**2


@pytest.mark.parametrize("name", ATTENTION)
def test_cost_grows_with_the_tokens_and_softmax_with_their_square(name):
    small, large = build(name, grid=(6, 6)), build(name, grid=(12, 12))
    growth = 16 if name == "softmax" else 4
    assert large.mixing_macs(144) == growth * small.mixing_macs(36)


@pytest.mark.parametrize("name", ATTENTION)
@pytest.mark.parametrize("scale", [1.0, 1e3, 1e5])
def test_bfloat16_stays_finite_for_large_inputs(name, scale):
    mechanism = build(name, layer_index=1, dim=96).to(torch.bfloat16)
    x = tokens(dim=96, scale=scale).to(torch.bfloat16).requires_grad_()
    y = mechanism(x)
    y.float().square().mean().backward()
    assert y.dtype == torch.bfloat16 and y.isfinite().all() and x.grad.isfinite().all()


@pytest.mark.parametrize("name", ATTENTION)
def test_bfloat16_is_close_to_float64(name):
    mechanism, x = build(name, layer_index=1), tokens()
    exact = mechanism(x)
    with torch.autocast("cpu", torch.bfloat16):
        rough = mechanism.float()(x.float()).double()
    assert (rough - exact).abs().max() <= 0.03 * exact.abs().max()


@pytest.mark.parametrize("name, setting", BOTH)
def test_fused_equals_unfused(name, setting):
    mechanism, x = build(name, setting=setting, layer_index=1), tokens()
    with sdpa_kernel(SDPBackend.MATH):
        unfused = mechanism(x)
    torch.testing.assert_close(mechanism(x), unfused, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ATTENTION)
@pytest.mark.slow
def test_compiled_equals_eager(name):
    mechanism, x = build(name, layer_index=1).float(), tokens().float()
    compiled = torch.compile(mechanism, backend="inductor")
    torch.testing.assert_close(compiled(x), mechanism(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name, setting", BOTH)
def test_every_parameter_gets_a_gradient(name, setting):
    mechanism = build(name, setting=setting, layer_index=1)
    mechanism(tokens()).square().sum().backward()
    without = [key for key, parameter in mechanism.named_parameters() if not parameter.grad.abs().sum() > 0]
    assert without == []


@pytest.mark.parametrize("name, setting", BOTH)
def test_saved_weights_and_copies_give_the_same_output(name, setting):
    x, first, second = tokens(), build(name, setting=setting), build(name, setting=setting, seed=7)
    assert (first(x) - second(x)).abs().max() > 1e-3
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(x), second(x)) and torch.equal(first(x), copy.deepcopy(first)(x))
    assert type(copy.deepcopy(first)) is type(first)


@pytest.mark.parametrize("name", ATTENTION)
def test_dropping_attention_acts_in_training_or_is_refused(name):
    if ATTENTION[name].refuses_attn_drop:
        with pytest.raises(ValueError, match=r"attn_drop is 0\.5 .* use attn_drop=0"):
            build(name, attn_drop=0.5)
        return
    mechanism, x = build(name, attn_drop=0.5), tokens()
    assert torch.equal(mechanism(x), mechanism(x))
    mechanism.train()
    assert (mechanism(x) - mechanism(x)).abs().max() > 1e-3


@pytest.mark.parametrize("name", ATTENTION)
def test_proj_drop_acts_in_training(name):
    mechanism, x = build(name, proj_drop=0.5).train(), tokens()
    assert 0.3 < (mechanism(x) == 0).double().mean() < 0.7


@pytest.mark.parametrize("name", ATTENTION)
@pytest.mark.parametrize("wrong, message", [
    ({"heads": 5}, "num_heads 5 does not divide dim 12"),
    ({"grid": (6, 0)}, "grid_size is 0"),
    ({"grid": 54}, r"wanted \(height, width\)"),
    ({"window": 3}, "has no option 'window'; it has: "),
    ({"setting": "paper"}, "setting is 'paper'; allowed: 'faithful', 'seed'"),
    ({"attn_drop": 1.5}, "attn_drop is 1.5"),
])
def test_what_cannot_be_built_is_refused(name, wrong, message):
    with pytest.raises(ValueError, match=message):
        build(name, **wrong)
