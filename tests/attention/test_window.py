"""Windows equal timm's Swin block, shifted and not, and do not leak over the shift mask."""

from functools import partial

import pytest
import timm.models.swin_transformer as swin
import torch
from parts import DIM, HEADS, build, tokens
from torch import nn

from medbench.attention.window import from_windows, shift_mask, to_windows
from medbench.backbone import Block


def timm_block(grid, window_size, shift):
    torch.manual_seed(3)
    block = swin.SwinTransformerBlock(DIM, grid, HEADS, window_size=window_size, shift_size=shift,
                                      norm_layer=partial(nn.LayerNorm, eps=1e-6)).double().eval()
    nn.init.normal_(block.attn.relative_position_bias_table)
    return block


@pytest.mark.parametrize("grid, window_size, layer_index", [
    ((16, 24), 8, 0), ((16, 24), 8, 1),   # shift 0 and 4
    ((6, 9), 3, 1),                       # an odd window: shift 1
    ((4, 12), 4, 1),                      # one window high: shifted sideways only
    ((3, 8), 4, 1),                       # lower than a window: clipped to 3, shifted sideways only
    ((4, 4), 8, 1),                       # a single clipped window: not shifted
])
def test_equals_timms_swin_block(grid, window_size, layer_index):
    attn = build("window", grid=grid, window_size=window_size, layer_index=layer_index)
    theirs = timm_block(grid, window_size, window_size // 2 * layer_index)
    assert (attn.window_size, attn.shift_size) == (theirs.window_size, theirs.shift_size)
    ours = Block(DIM, attn, mlp_ratio=4.0, proj_drop=0.0, drop_path=0.0).double().eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = tokens(num_tokens=grid[0] * grid[1])
    expected = theirs(x.unflatten(1, grid)).flatten(1, 2)
    torch.testing.assert_close(ours(x), expected, rtol=0, atol=1e-12)


def test_one_window_and_zero_bias_is_softmax_attention():
    window, softmax = build("window", grid=(5, 7), window_size=7), build("softmax", grid=(5, 7))
    nn.init.zeros_(window.relative_position_bias_table)
    window.load_state_dict(softmax.state_dict(), strict=False)
    x = tokens(num_tokens=35)
    torch.testing.assert_close(window(x), softmax(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("layer_index", [0, 1])
def test_nothing_leaks_out_of_a_window_or_over_the_mask(layer_index):
    """The pattern of the Jacobian is "same window, same region"; over the mask at most exp(-100) is left."""
    grid, w = (8, 12), 4
    window = build("window", grid=grid, window_size=w, layer_index=layer_index)
    x = tokens(batch=1, num_tokens=96)
    J = torch.autograd.functional.jacobian(lambda x: window(x).sum((0, 2)), x).abs().sum((1, 3))
    y, z = (g.flatten() for g in torch.meshgrid(torch.arange(8), torch.arange(12), indexing="ij"))
    shift = 2 * layer_index
    same = ((y[:, None] - shift).div(w, rounding_mode="floor") == (y - shift).div(w, rounding_mode="floor")) \
        & ((z[:, None] - shift).div(w, rounding_mode="floor") == (z - shift).div(w, rounding_mode="floor"))
    assert J[same].min() > 1e-9 and J[~same].max() <= 1e-30


@pytest.mark.parametrize("grid, window, shift", [
    ((8, 12), (4, 4), (2, 2)), ((6, 9), (3, 3), (1, 1)), ((4, 12), (4, 4), (0, 2)), ((12, 3), (4, 3), (2, 0)),
])
def test_the_shift_mask_is_timms(grid, window, shift):
    block = swin.SwinTransformerBlock(DIM, grid, HEADS, window_size=window, shift_size=shift)
    assert torch.equal(shift_mask(grid, window, shift), block.attn_mask)


def test_windows_are_cut_row_by_row_and_put_back():
    grid = torch.arange(2 * 6 * 8).view(2, 6, 8, 1)
    windows = to_windows(grid, (3, 4))
    assert windows[1, :, 0].tolist() == [4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23]
    assert torch.equal(from_windows(windows, (3, 4), (6, 8)), grid)


def test_the_study_never_shifts_and_has_no_bias():
    window = build("window", setting="seed", layer_index=1)
    assert window.shift_size == (0, 0) and window.attn_mask is None
    assert set(window.state_dict()) == {"qkv.weight", "qkv.bias", "proj.weight", "proj.bias"}


def test_a_window_that_does_not_divide_the_grid_is_refused():
    with pytest.raises(ValueError, match=r"window_size 4 does not divide the \(6, 9\) grid; choose"):
        build("window", window_size=4)
    with pytest.raises(ValueError, match=r"built for a \(6, 9\) grid \(54 tokens\) but received 72"):
        build("window")(tokens(num_tokens=72))
