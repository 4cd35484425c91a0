"""Maps equal what can be worked out by hand; their scores find what is there and nothing where nothing is."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

import medbench as mb
from medbench import results, saliency
from medbench.faithfulness import rank_correlation

N, C, H, W, K = 3, 2, 8, 10, 4


class Linear(nn.Module):
    """Logits that are sums over all pixels."""

    def __init__(self, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.w = nn.Parameter(torch.randn(K, C, H, W, generator=generator))

    def forward(self, x):
        return torch.einsum("nchw,kchw->nk", x, self.w)


class Curved(nn.Module):
    """Two logits: one of a smooth step of the mean, `sharp` times as steep, one constant."""

    def __init__(self, sharp):
        super().__init__()
        self.sharp, self.w = sharp, nn.Parameter(torch.ones(()))

    def forward(self, x):
        f = torch.sigmoid(self.sharp * self.w * (x.mean((1, 2, 3)) - 0.37))
        return torch.stack([f, torch.zeros_like(f)], 1)


def pictures(seed=0, n=N):
    return torch.randn(n, C, H, W, generator=torch.Generator().manual_seed(seed))


# --------------------------------------------------------------------------------------------- by hand
def test_maps_of_a_linear_model():
    model, x, target = Linear(), pictures(), torch.tensor([2, 0, 3])
    w = model.w.detach()[target]
    assert np.allclose(saliency.gradient(model, x, target).map, w.sum(1).abs(), atol=1e-6)
    assert np.allclose(saliency.smooth_grad(model, x, target, samples=3).map, w.sum(1).abs(), atol=1e-5)
    found = saliency.integrated_gradients(model, x, target, baseline=0.3, n_steps=2)
    assert np.allclose(found.map, (w * (x - 0.3)).sum(1), atol=1e-5)
    assert found.complete.all() and (found.steps == 2).all() and np.abs(found.delta).max() < 1e-3
    assert np.allclose(found.gap, (w * (x - 0.3)).sum((1, 2, 3)), atol=1e-4)


def test_occlusion_is_the_mean_fall_of_the_squares_that_cover_a_pixel():
    model, x = Linear(), pictures()
    found = saliency.occlusion(model, x, 1, patch=4, stride=2, baseline=-0.5).map
    fall, count = np.zeros((N, H, W)), np.zeros((H, W))
    for top in range(0, H - 3, 2):
        for left in range(0, W - 3, 2):
            covered = x.clone()
            covered[:, :, top:top + 4, left:left + 4] = -0.5
            with torch.no_grad():
                lost = (model(x) - model(covered))[:, 1].numpy()
            fall[:, top:top + 4, left:left + 4] += lost[:, None, None]
            count[top:top + 4, left:left + 4] += 1
    assert np.allclose(found, fall / count, atol=1e-4)


def test_integrated_gradients_of_a_square():
    class Square(Linear):
        def forward(self, x):
            return torch.einsum("nchw,kchw->nk", x**2, self.w)
    model, x = Square(), pictures()
    found = saliency.integrated_gradients(model, x, 1, baseline=0.5, n_steps=2)      # exact for polynomials up to cubic
    assert np.allclose(found.map, (model.w.detach()[1] * (x**2 - 0.25)).sum(1), atol=1e-4)


def test_the_default_target_is_the_largest_logit():
    model, x = Linear(), pictures()
    chosen = model(x).argmax(1)
    assert (saliency.gradient(model, x).target == chosen.numpy()).all()
    assert np.array_equal(saliency.gradient(model, x).map, saliency.gradient(model, x, chosen).map)


def test_maps_do_not_depend_on_the_batch_size():
    model, x = mb.build_model("softmax", "smoke"), torch.randn(3, 1, 112, 112)
    for method in ("gradient", "occlusion"):
        options = {"patch": 56, "stride": 28} if method == "occlusion" else {}
        one, many = (saliency.explain(method, model, x, 1, batch_size=size, **options).map for size in (1, 16))
        assert np.allclose(one, many, atol=1e-5 * np.abs(one).max())
    one, many = (saliency.integrated_gradients(model, x, 1, n_steps=8, max_steps=8, batch_size=s).map for s in (3, 24))
    assert np.allclose(one, many, atol=1e-5 * np.abs(one).max())


# --------------------------------------------------------------------------------------------- completeness
def test_steps_are_doubled_where_a_map_is_incomplete_and_only_there():
    x = torch.ones(2, C, H, W) * torch.tensor([1.0, 0.05])[:, None, None, None]
    found = saliency.integrated_gradients(Curved(60.0), x, 0, baseline=0.0, n_steps=4, max_steps=256)
    assert found.complete.all() and found.steps[0] > 4 == found.steps[1]
    assert (np.abs(found.delta) <= 0.01 * np.abs(found.gap)).all()
    few = saliency.integrated_gradients(Curved(60.0), x, 0, baseline=0.0, n_steps=4, max_steps=4)
    assert not few.complete[0] and few.steps[0] == 4


def test_what_stays_incomplete_is_reported(tmp_path):
    class Step(Curved):
        def forward(self, x):
            f = (x.mean((1, 2, 3)) > 0.4).float() + 0 * x.sum((1, 2, 3))
            return torch.stack([f, -f], 1)
    found = saliency.integrated_gradients(Step(1), torch.ones(2, C, H, W), 0, baseline=0.0, n_steps=8, max_steps=20)
    assert (found.steps == 20).all() and not found.complete.any() and np.allclose(found.delta, -1)
    row = {r["quantity"]: r for r in found.rows()}
    assert row["complete_share"]["value"] == 0 and row["completeness_error"]["value"] == 1
    assert row["steps"]["context"]["baseline"] == 0.0


def test_a_baseline_image_gives_no_relevance_where_nothing_differs():
    model, x = Linear(), pictures()
    twin = x.clone()
    twin[:, :, 2:4, 5:8] = 0.0
    found = saliency.integrated_gradients(model, x, 1, baseline=twin)
    outside = np.ones((H, W), bool)
    outside[2:4, 5:8] = False
    assert not found.map[:, outside].any() and found.map[:, ~outside].all()
    assert found.options["baseline"] == "images"


def test_mean_grey_is_on_the_models_scale():
    images = np.array([[[0, 255], [255, 0]]], np.uint8)
    assert saliency.mean_grey(images) == pytest.approx(0.0)
    images = np.random.default_rng(0).integers(0, 256, (5, 7, 9), dtype=np.uint8)
    assert saliency.mean_grey(images) == pytest.approx(float(mb.data.to_input(images).mean()), abs=1e-6)


# --------------------------------------------------------------------------------------------- every model
@pytest.mark.parametrize("name", mb.config.ALL_MODELS)
def test_every_model_has_every_map(name):
    model, x = mb.build_model(name, "smoke").train(), torch.randn(2, 1, 112, 112)
    model.head.requires_grad_(False) if hasattr(model, "head") else None
    modes, wanted = [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]
    random = torch.get_rng_state()
    for method, options in (("gradient", {}), ("integrated_gradients", {"n_steps": 8, "max_steps": 16}),
                            ("smooth_grad", {"samples": 3}), ("occlusion", {"patch": 56, "stride": 28})):
        found = saliency.explain(method, model, x, 3, **options)
        assert found.map.shape == (2, 112, 112) and np.isfinite(found.map).all() and found.map.any()
        assert found.method == method and (found.target == 3).all()
    assert [m.training for m in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == wanted
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(random, torch.get_rng_state())


def test_smooth_grad_depends_on_its_seed_alone():
    model, x = mb.build_model("xca", "smoke"), torch.randn(2, 1, 112, 112)
    first, again, other = (saliency.smooth_grad(model, x, 1, samples=2, seed=seed).map for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


# --------------------------------------------------------------------------------------------- localisation
def lesions(n=40, size=20, seed=0):
    rng = np.random.default_rng(seed)
    masks = np.zeros((n, size, size), bool)
    for mask in masks:
        y, x, h, w = rng.integers(0, size - 6, 2).tolist() + rng.integers(2, 6, 2).tolist()
        mask[y:y + h, x:x + w] = True
    return masks, rng.normal(size=masks.shape)


def test_a_perfect_map_points_and_an_even_one_is_chance():
    masks, images = lesions()
    right = saliency.localise(masks.astype(float), masks, images)
    assert right["pointing"]["value"] == right["mass"]["value"] == 1
    for map in (np.ones_like(images), np.zeros_like(images), -masks.astype(float)):
        even = saliency.localise(map, masks, images)
        assert even["mass_above_chance"]["value"] == pytest.approx(0, abs=1e-12)
        assert even["pointing_above_chance"]["value"] == pytest.approx(0, abs=1e-12)
    area = masks.mean((1, 2)).mean()
    assert right["chance"]["value"] == pytest.approx(area)
    assert right["mass_above_chance"]["value"] == pytest.approx(1 - area)


def test_localisation_by_a_slow_loop():
    masks, images = lesions(seed=1)
    maps = np.random.default_rng(2).normal(size=masks.shape) + masks
    found = saliency.localise(maps, masks, images).per_image
    for i in range(len(masks)):
        where = np.unravel_index(maps[i].argmax(), maps[i].shape)
        positive = np.maximum(maps[i], 0)
        assert found["pointing"][i] == masks[i][where]
        assert found["mass"][i] == pytest.approx(positive[masks[i]].sum() / positive.sum())


def test_edges_are_a_baseline_of_their_own():
    masks, _ = lesions()
    images = masks * 1.0                                      # the only edges are the lesion's
    found = saliency.localise(np.ones_like(images), masks, images)
    assert found["edge_mass"]["value"] > 3 * found["chance"]["value"]
    assert found["mass_above_edges"]["high"] < 0
    assert not saliency.edges(np.full((1, 5, 5), 7.0)).any()
    ramp = saliency.edges(np.tile(np.arange(6.0), (1, 6, 1)))[0]
    assert np.allclose(ramp[:, 1:-1], 8)                      # Sobel's weights sum up to 8 on a slope of 1
    pair = np.random.default_rng(0).random((2, 5, 7))
    assert np.array_equal(saliency.edges(pair)[1], saliency.edges(pair[1:])[0])


def test_images_without_a_lesion_are_left_out():
    masks, images = lesions()
    masks[::2] = False
    found = saliency.localise(np.ones_like(images), masks, images)
    assert found["mass"]["n"] == 20
    none = saliency.localise(np.ones_like(images), np.zeros_like(masks), images)
    assert none["mass"] == {"value": None, "n": 0, "reason": "no image has a lesion"}


def test_intervals_cover_the_mean():
    rng, hits = np.random.default_rng(0), 0
    for seed in range(200):
        mean = saliency.localise(*one_sided(rng), bootstrap=200, seed=seed)["mass_above_chance"]
        hits += mean["low"] <= 0 <= mean["high"]
    assert 0.88 <= hits / 200 <= 0.99


def one_sided(rng, n=30, size=8):
    """Maps that know nothing, masks of half the image."""
    masks = np.zeros((n, size, size), bool)
    masks[:, :, :4] = True
    return rng.random((n, size, size)) * rng.random((n, 1, size)) ** 2, masks, np.zeros(masks.shape)


def test_boxes_become_masks():
    boxes = [[0.5, 0.25, 0.5, 0.5], [np.nan] * 4, [0.5, 0.5, 1, 1]]
    masks = saliency.to_masks(boxes, (8, 12))
    assert masks.shape == (3, 8, 12) and masks[0].sum() == 4 * 6 and masks[0][:4, 3:9].all()
    assert not masks[1].any() and masks[2].all()


# --------------------------------------------------------------------------------------------- faithfulness
def test_curves_begin_and_end_where_they_must_and_the_right_order_wins():
    model, x = Linear(), pictures(n=6)
    target = torch.arange(6) % K
    maps = saliency.integrated_gradients(model, x, target, baseline=0.1)
    found = saliency.insertion_deletion(model, x, maps, baseline=0.1, points=9)
    with torch.no_grad():
        full = model(x).softmax(1).gather(1, target[:, None])[:, 0]
        empty = model(torch.full_like(x, 0.1)).softmax(1).gather(1, target[:, None])[:, 0]
    assert np.allclose(found.deletion[:, 0], full, atol=1e-6) and np.allclose(found.deletion[:, -1], empty, atol=1e-6)
    assert np.allclose(found.insertion[:, 0], empty, atol=1e-6) and np.allclose(found.insertion[:, -1], full, atol=1e-6)
    assert found["deletion_gain"]["value"] > 0 and found["insertion_gain"]["value"] > 0
    upside_down = saliency.insertion_deletion(model, x, -maps.map, target, baseline=0.1, points=9)
    assert upside_down["deletion_auc"]["value"] > found["deletion_auc"]["value"]
    assert upside_down["insertion_auc"]["value"] < found["insertion_auc"]["value"]


def test_one_step_of_deletion_by_hand():
    model, x = Linear(), pictures(n=1)
    maps = torch.arange(H * W, dtype=torch.float32).view(1, H, W).numpy()
    found = saliency.insertion_deletion(model, x, maps, 2, baseline=0.0, points=3)
    half = x.clone()
    half.flatten(2)[:, :, H * W // 2:] = 0                    # the larger half of the map is gone
    with torch.no_grad():
        assert found.deletion[0, 1] == pytest.approx(float(model(half).softmax(1)[0, 2]), abs=1e-6)
    assert found["deletion_auc"]["value"] == pytest.approx(np.trapezoid(found.deletion[0], [0, 0.5, 1]))


def test_randomisation_tells_a_map_of_the_model_from_one_of_the_image():
    model, x = mb.build_model("softmax", "smoke"), torch.randn(4, 1, 112, 112)

    def of_the_image(model, images, target):
        return saliency.Maps("edges", saliency.edges(images), np.asarray(target))
    assert saliency.randomisation(of_the_image, model, x, np.zeros(4, int)).mean["value"] == pytest.approx(1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = saliency.randomisation(saliency.gradient, Linear(), pictures(), 1)
    assert abs(found.mean["value"]) < 0.4 and found.correlation.shape == (N,)
    saliency.randomisation(saliency.gradient, model, x, 1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_rank_correlation_is_spearmans():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 5, 4, 7)).round(1)
    want = [spearmanr(x.ravel(), y.ravel()).statistic for x, y in zip(a, b)]
    assert np.allclose(rank_correlation(a, b), want)
    assert rank_correlation(a, np.ones_like(a)).tolist() == [0.0] * 5


# --------------------------------------------------------------------------------------------- records and errors
def test_rows_become_records(tmp_path):
    model, x = Linear(), pictures()
    maps = saliency.integrated_gradients(model, x, 1)
    masks = np.zeros((N, H, W), bool)
    masks[:2, 2:5, 3:6] = True
    to = tmp_path / "cpu" / "13_saliency.json"
    measured = (saliency.localise(maps, masks, x), saliency.insertion_deletion(model, x, maps),
                saliency.randomisation(saliency.gradient, model, x, 1))
    results.record("saliency.softmax", maps, *measured, to=to)
    table = results.load(tmp_path).set_index("name")
    assert table.loc["saliency.softmax.mass.integrated_gradients", "n"] == 2
    assert table.loc["saliency.softmax.complete_share.integrated_gradients", "value"] == 1
    assert table.loc["saliency.softmax.deletion_auc.integrated_gradients", "method"] == "integrated_gradients"
    assert table.loc["saliency.softmax.randomisation_correlation.gradient", "low"] <= 1


@pytest.mark.parametrize("call, words", [
    (lambda: saliency.gradient("m", pictures()), "model is a str; wanted a torch.nn.Module"),
    (lambda: saliency.gradient(Linear(), np.zeros((2, 8, 10), np.uint8)), "wanted floats (n, C, H, W)"),
    (lambda: saliency.gradient(Linear(), torch.zeros(0, C, H, W)), "images are torch.float32 of shape (0, 2, 8, 10)"),
    (lambda: saliency.gradient(Linear(), torch.zeros(2, C, H, 9)), "images of shape (2, 2, 8, 9) do not run through"),
    (lambda: saliency.gradient(Linear(), pictures(), 4), "target holds classes from 4 to 4; the model has 4"),
    (lambda: saliency.gradient(Linear(), pictures(), [1, 2]), "target has shape (2,)"),
    (lambda: saliency.gradient(Linear(), pictures(), 1.5), "wanted one class, or 3 of them as integers"),
    (lambda: saliency.explain("grad", Linear(), pictures()), "method is 'grad'; allowed: 'gradient'"),
    (lambda: saliency.integrated_gradients(Linear(), pictures(), n_steps=0), "n_steps is 0; wanted a number from 1 to"),
    (lambda: saliency.integrated_gradients(Linear(), pictures(), baseline=torch.zeros(1)), "baseline has shape (1,)"),
    (lambda: saliency.occlusion(Linear(), pictures(), patch=16), "patch is 16; wanted a number from 1 to 8"),
    (lambda: saliency.smooth_grad(Linear(), pictures(), samples=0), "samples is 0"),
    (lambda: saliency.mean_grey(np.zeros((2, 3, 3))), "wanted uint8"),
    (lambda: saliency.localise(np.ones((2, 5, 5)), np.ones((2, 4, 5), bool), np.ones((2, 5, 5))),
     "masks are bool of shape (2, 4, 5); wanted bool (2, 5, 5)"),
    (lambda: saliency.localise(np.ones((2, 5, 5)), np.ones((2, 5, 5)), np.ones((2, 5, 5))), "masks are float64"),
    (lambda: saliency.localise(np.ones((2, 5, 5)), np.ones((2, 5, 5), bool), np.ones((2, 4, 4))), "images have shape"),
    (lambda: saliency.localise(np.full((1, 5, 5), np.nan), np.ones((1, 5, 5), bool), np.ones((1, 5, 5))), "1 of 1 map"),
    (lambda: saliency.insertion_deletion(Linear(), pictures(), np.ones((3, 4, 4))), "maps have shape (3, 4, 4)"),
    (lambda: saliency.to_masks([[10, 20, 30, 40]], (8, 8)), "wanted shares of the image's sides, not pixels"),
    (lambda: saliency.to_masks([1, 2], (8, 8)), "boxes have shape (2,)"),
])
def test_errors_say_what_came_and_what_was_wanted(call, words):
    with pytest.raises((TypeError, ValueError)) as error:
        call()
    assert words in str(error.value)
