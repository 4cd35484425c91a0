"""The pyramid's parts do what their docstrings say, and its skeleton starts alike whatever the mechanism."""

import pytest
import timm.models.xcit as xcit
import torch

from medbench.attention import ATTENTION
from medbench.backbone import PatchMerge, Pyramid, fourier_features, grid_sizes, initialise, power_of_two
from medbench.config import model_config


def pyramid(name="softmax", preset="smoke", **overrides):
    model = Pyramid(model_config(name, preset, **overrides))
    initialise(model, 0)
    return model.eval()


def images(batch=2, in_chans=1, size=(112, 112), seed=0):
    return torch.randn(batch, in_chans, *size, generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------ before the first block
def test_fourier_features_are_xcits():
    encoding = xcit.PositionalEncodingFourier(hidden_dim=32, dim=64)
    torch.nn.init.eye_(encoding.token_projection.weight.data.view(64, 64))
    torch.nn.init.zeros_(encoding.token_projection.bias)
    torch.testing.assert_close(fourier_features((5, 7)), encoding(1, 5, 7), rtol=0, atol=1e-5)


@pytest.mark.parametrize("side, power", [(64, 64), (65, 128), (112, 128), (224, 256), (448, 512)])
def test_the_conv_stem_resizes_to_the_next_power_of_two(side, power):
    assert power_of_two(side) == power


@pytest.mark.parametrize("overrides, grids", [
    (dict(preset="paper"), [(32, 32), (16, 16), (8, 8), (4, 4)]),
    (dict(preset="paper", img_size=448), [(64, 64), (32, 32), (16, 16), (8, 8)]),
    (dict(preset="paper", img_size=(224, 448)), [(32, 64), (16, 32), (8, 16), (4, 8)]),
    (dict(preset="paper", stem="conv"), [(32, 32), (16, 16), (8, 8), (4, 4)]),
    (dict(preset="small"), [(16, 16), (8, 8), (4, 4), (2, 2)]),
    (dict(preset="small", img_size=(112, 200)), [(16, 32), (8, 16), (4, 8), (2, 4)]),
    (dict(preset="smoke"), [(16, 16), (8, 8), (4, 4), (2, 2)]),
])
def test_grids(overrides, grids):
    assert grid_sizes(model_config("softmax", **overrides)) == grids


def test_tokens_are_row_major_over_the_image():
    """A change in one patch moves its own token alone, and that token lies where the patch does."""
    stem = pyramid(preset="paper", img_size=(7 * 8, 7 * 16)).stem
    x = images(1, 3, (56, 112))
    changed = x.clone()
    changed[:, :, 7 * 3 + 2, 7 * 5 + 4] += 1     # patch row 3, column 5 of 8 x 16
    moved = (stem(changed) - stem(x)).abs().sum(-1)[0] > 1e-6
    assert moved.nonzero().flatten().tolist() == [3 * 16 + 5]


def test_the_patch_merge_joins_two_by_two_neighbours():
    merge = PatchMerge(3, 5, (4, 6)).double()
    x = torch.randn(2, 24, 3, dtype=torch.float64)
    grid = x.view(2, 4, 6, 3)
    first = torch.cat([grid[:, 2, 4], grid[:, 2, 5], grid[:, 3, 4], grid[:, 3, 5]], dim=-1)  # merged row 1, column 2
    torch.testing.assert_close(merge(x)[:, 1 * 3 + 2], merge.reduction(merge.norm(first)), rtol=0, atol=1e-12)
    assert merge.reduction.bias is None


# ------------------------------------------------------------------ the whole
def test_a_block_is_two_residual_steps():
    block = pyramid().stages[0].blocks[1].double()
    x = torch.randn(2, 256, 16, dtype=torch.float64)
    y = x + block.attn(block.norm1(x))
    torch.testing.assert_close(block(x), y + block.mlp(block.norm2(y)), rtol=0, atol=1e-12)


def test_the_head_is_a_mean_over_normalised_tokens():
    model = pyramid()
    tokens = model.forward_features(images())
    assert tokens.shape == (2, 4, 64)
    torch.testing.assert_close(model(images()), model.head(tokens.mean(1)))
    assert model.forward_head(tokens, pre_logits=True).shape == (2, 64) and model.get_classifier() is model.head


def test_norms_have_the_studys_epsilon():
    assert {m.eps for m in pyramid().modules() if isinstance(m, torch.nn.LayerNorm)} == {1e-6}


def test_every_second_window_shifts_where_the_grid_has_several():
    shifts = [[block.attn.shift_size for block in stage.blocks] for stage in pyramid("window", "small").stages]
    assert shifts == [[(0, 0), (2, 2)], [(0, 0), (2, 2)], [(0, 0), (0, 0)], [(0, 0)]]
    shifts = [[block.attn.shift_size[0] for block in stage.blocks] for stage in pyramid("window", "paper").stages]
    assert shifts == [[0, 4], [0, 4], [0] * 6, [0] * 2]


def test_an_option_may_differ_from_stage_to_stage():
    model = pyramid("linformer", "small", r=[64, 32, 16, 4])
    assert [stage.blocks[0].attn.r for stage in model.stages] == [64, 32, 16, 4]


def test_drop_path_rises_along_the_depth_and_spares_evaluation():
    model = pyramid(preset="small", drop_path_rate=0.3)
    rates = [getattr(block.drop_path, "drop_prob", 0) for stage in model.stages for block in stage.blocks]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3])
    assert torch.equal(model(images()), model(images()))
    assert not torch.equal(model.train()(images(8)), model(images(8)))


@pytest.mark.parametrize("name", ATTENTION)
def test_images_of_another_shape_are_refused(name):
    with pytest.raises(ValueError, match=r"built for images of .* \(1, 112, 112\) but received \(3, 112, 112\); build"):
        pyramid(name)(images(in_chans=3))
    with pytest.raises(ValueError, match=r"received \(1, 96, 112\)"):
        pyramid(name)(images(size=(96, 112)))


# ------------------------------------------------------------------ first weights
def test_the_skeleton_starts_alike_whatever_the_mechanism():
    states = {name: pyramid(name).state_dict() for name in ATTENTION}
    skeleton = [key for key in states["softmax"] if ".attn." not in key]
    assert len(skeleton) > 40
    for name, state in states.items():
        assert [key for key in state if ".attn." not in key] == skeleton
        assert all(torch.equal(state[key], states["softmax"][key]) for key in skeleton), name
        shared = [key for key in state if key.endswith(("attn.qkv.weight", "attn.proj.weight"))]
        assert shared and all(torch.equal(state[key], states["softmax"][key]) for key in shared), name


def test_first_weights_depend_on_the_seed_alone():
    first = pyramid("performer").state_dict()
    torch.manual_seed(99)
    again = pyramid("performer").state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    other = Pyramid(model_config("performer", "smoke"))
    initialise(other, 1)
    drawn = [key for key in first if key.endswith("weight") and "norm" not in key and first[key].ndim > 1 or "W" in key]
    assert all(not torch.equal(first[key], other.state_dict()[key]) for key in drawn)


def test_two_layers_of_one_shape_start_differently():
    state = pyramid().state_dict()
    assert not torch.equal(state["stages.0.blocks.0.mlp.fc1.weight"], state["stages.0.blocks.1.mlp.fc1.weight"])


@pytest.mark.parametrize("name", ATTENTION)
def test_a_model_can_be_built_without_memory_for_counting(name):
    with torch.device("meta"):
        model = Pyramid(model_config(name, "paper"))
        initialise(model, 0)
        assert model(torch.empty(2, 3, 224, 224)).shape == (2, 10)


def test_linear_maps_keep_the_variance_and_blocks_begin_close_to_the_identity():
    model = pyramid("softmax", "small")
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and module.weight.numel() > 1000:
            ends = name.endswith(("attn.proj", "mlp.fc2", "head"))
            wanted = 0.02 if ends else module.in_features**-0.5
            assert module.weight.std().item() == pytest.approx(wanted, rel=0.1), name
    tokens = torch.randn(2, 256, 32)
    block = model.stages[0].blocks[0].eval()
    assert (block(tokens) - tokens).norm() < 0.3 * tokens.norm()
