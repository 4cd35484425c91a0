"""Every model builds as described, with the study's parameters to the last one, and impossible ones are refused."""

import copy
import dataclasses
import json
import pickle

import pytest
import timm
import torch
from safetensors.torch import load_model, save_model

import medbench as mb
from medbench.config import ALL_MODELS, CONTROL, MECHANISMS, MODELS, PRESETS, ModelConfig, model_config

PARAMETERS = {  # of the study's models: with 1000 classes, with 10
    "softmax": (28_280_776, 27_519_466),
    "linformer": (28_562_812, 27_801_502),
    "performer": (28_280_776, 27_519_466),
    "fastformer": (28_289_608, 27_528_298),
    "xca": (28_280_776, 27_519_466),
    "window": (28_280_776, 27_519_466),
    "resnet50": (25_557_032, 23_528_522),
}


def parameters(model):
    return sum(p.numel() for p in model.parameters())


def images(batch=2, in_chans=1, size=(112, 112)):
    return torch.randn(batch, in_chans, *size, generator=torch.Generator().manual_seed(0))


# ------------------------------------------------------------------ the study's models
@pytest.mark.parametrize("column, num_classes", [(0, 1000), (1, 10)])
@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_the_studys_to_the_last_one(name, column, num_classes):
    model = mb.build_model(name, setting="seed", num_classes=num_classes)
    assert parameters(model) == PARAMETERS[name][column]


def test_random_features_are_no_parameters_and_linformers_projection_is_shared():
    performer = mb.build_model("performer", "small", setting="seed")
    assert any(key.endswith("attn.W") for key in performer.state_dict())
    assert parameters(performer) == parameters(mb.build_model("softmax", "small", setting="seed"))


# ------------------------------------------------------------------ every preset, every model
@pytest.mark.parametrize("setting", ["faithful", "seed"])
@pytest.mark.parametrize("preset", ["smoke", "small"])
@pytest.mark.parametrize("name", ALL_MODELS)
def test_maps_images_to_logits_and_gradients_to_every_parameter(name, preset, setting):
    model = mb.build_model(name, preset, setting, num_classes=7)
    logits = model(images(3))
    assert logits.shape == (3, 7) and logits.isfinite().all()
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 3, 6])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert model.config == model_config(name, preset, setting, 7)


@pytest.mark.parametrize("name", MODELS)
def test_small_models_are_of_one_size(name):
    assert 1.3e6 < parameters(mb.build_model(name, "small")) < 1.7e6


def test_the_smoke_preset_keeps_four_tokens_to_the_end():
    assert mb.build_model("softmax", "smoke").stages[-1].grid_size == (2, 2)


@pytest.mark.parametrize("name", ALL_MODELS)
def test_same_seed_same_model_and_the_global_generator_is_left_alone(name):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = mb.build_model(name, "smoke", seed=4).eval()
    assert torch.equal(torch.rand(3), expected)
    again, other = mb.build_model(name, "smoke", seed=4).eval(), mb.build_model(name, "smoke", seed=5).eval()
    assert torch.equal(first(images()), again(images())) and not torch.equal(first(images()), other(images()))


@pytest.mark.parametrize("name", ALL_MODELS)
def test_a_model_comes_back_from_its_configuration_and_its_weights(name, tmp_path):
    first = mb.build_model(name, "smoke", num_classes=3, seed=1).eval()
    config = ModelConfig(**json.loads(json.dumps(dataclasses.asdict(first.config))))
    assert config == first.config
    second = mb.build_model(config.replace(seed=2)).eval()
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(images()), second(images()))
    save_model(first, str(tmp_path / "weights.safetensors"))
    third = mb.build_model(config.replace(seed=3)).eval()
    load_model(third, str(tmp_path / "weights.safetensors"))
    assert torch.equal(first(images()), third(images()))
    if name != "resnet50":                                                      # whose weights are channels-last
        assert all(value.is_contiguous() for value in first.state_dict().values())


@pytest.mark.parametrize("name", ALL_MODELS)
def test_copies_and_pickles_give_the_same_output(name):
    model = mb.build_model(name, "smoke").eval()
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(images()), model(images()))


@pytest.mark.parametrize("name", ALL_MODELS)
def test_every_model_can_learn_four_images(name):
    torch.manual_seed(0)
    model, x, y = mb.build_model(name, "smoke").train(), images(4), torch.tensor([1, 3, 5, 7])
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(40):
        loss = torch.nn.functional.cross_entropy(model(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.1


def test_resnet50_is_timms():
    ours, theirs = mb.build_model("resnet50").eval(), timm.create_model("resnet50", num_classes=10).eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x = images(1, 3, (64, 96))
    assert torch.equal(ours(x), theirs(x.contiguous(memory_format=torch.channels_last)))


@pytest.mark.parametrize("preset", PRESETS)
def test_every_resnet_lays_weights_and_images_out_channels_last(preset):
    ours, seen = mb.build_model("resnet50", preset), []
    for model in (ours, copy.deepcopy(ours).double()):
        assert all(p.is_contiguous(memory_format=torch.channels_last) for p in model.parameters() if p.dim() == 4)
    ours.layer1.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    ours.eval()(torch.zeros(2, ours.config.in_chans, *ours.config.img_size))
    assert seen[0].is_contiguous(memory_format=torch.channels_last)


def test_the_small_resnet_computes_what_timms_does():
    ours = mb.build_model("resnet50", "small").eval()
    torch.testing.assert_close(ours(images()), timm.models.ResNet.forward(ours, images()), rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------ other images
@pytest.mark.parametrize("name", ALL_MODELS)
@pytest.mark.parametrize("size", [(448, 448), (224, 448)])
def test_the_papers_models_take_other_images(name, size):
    model = timm.create_model(f"medbench_{name}", num_classes=3, in_chans=1, img_size=size, depths=(1, 1, 1, 1)) \
        if name != "resnet50" else timm.create_model("medbench_resnet50", num_classes=3, in_chans=1, img_size=size)
    with torch.inference_mode():
        assert model.eval()(images(1, 1, size)).shape == (1, 3)


# ------------------------------------------------------------------ timm's registry
def test_timm_knows_every_model():
    assert set(timm.list_models("medbench_*")) == {f"medbench_{name}" for name in ALL_MODELS}
    assert type(timm.create_model("medbench_linformer", preset="smoke", num_classes=3)) is mb.models.Pyramid


@pytest.mark.parametrize("name", ALL_MODELS)
def test_timm_finds_no_pretrained_weights(name):
    with pytest.raises(ValueError, match=f"medbench_{name} has no pretrained weights; use pretrained=False"):
        timm.create_model(f"medbench_{name}", pretrained=True)


# ------------------------------------------------------------------ what is refused, before anything is allocated
IMPOSSIBLE = [
    (dict(name="sofmax"), "model name is 'sofmax'; allowed: 'softmax', 'linformer'"),
    (dict(name="softmax", preset="tiny"), "preset is 'tiny'; allowed: 'paper', 'small', 'smoke'"),
    (dict(name="softmax", setting="paper"), "setting is 'paper'; allowed: 'faithful', 'seed'"),
    (dict(name="softmax", image_size=224), "softmax .* has no option 'image_size'; .* img_size"),
    (dict(name="softmax", r=16), "softmax .* has no option 'r'; it has: none of its own"),
    (dict(name="linformer", window_size=8), "linformer .* has no option 'window_size'; it has: r"),
    (dict(name="xca", setting="seed", lpi=True), r"xca \(setting 'seed'\) has no option 'lpi'"),
    (dict(name="linformer", r=64), r"stage 4: Linformer's r is 64 but the \(4, 4\) grid has only 16 tokens; give"),
    (dict(name="linformer", r=[64, 32]), "r is .*2 values for 4 stages; give one for each stage"),
    (dict(name="performer", r=0), "Performer's r is 0; wanted a whole number"),
    (dict(name="window", window_size=5), r"window_size 5 does not divide the \(32, 32\) grid; choose"),
    (dict(name="window", img_size=336), r"stage 3: window_size 8 does not divide the \(12, 12\) grid"),
    (dict(name="softmax", num_heads=(3, 6, 12, 25)), "num_heads 25 does not divide embed_dims 768; choose"),
    (dict(name="softmax", depths=(2, 2)), "describe different numbers of stages; give each the same"),
    (dict(name="softmax", preset="small", patch_size=7), "patch_size is 7 but stem='conv' has no patches; leave"),
    (dict(name="softmax", img_size=220), "img_size .* is not divided by patch_size 7; choose a multiple of 7"),
    (dict(name="softmax", img_size=140), r"a \(20, 20\) grid .* 3 patch merges cannot halve; choose"),
    (dict(name="softmax", preset="small", img_size=20), r"a \(4, 4\) grid .* 3 patch merges cannot halve"),
    (dict(name="softmax", img_size=(224, 224, 3)), "img_size is .*; wanted one side"),
    (dict(name="softmax", num_classes=0), "num_classes is 0; wanted a whole number from 1"),
    (dict(name="softmax", num_classes=2.5), "num_classes is 2.5; wanted a whole number"),
    (dict(name="softmax", in_chans="1"), "in_chans is '1'; wanted a whole number"),
    (dict(name="softmax", attn_drop=1.5), "attn_drop is 1.5; wanted a number from 0 to 1"),
    (dict(name="softmax", stem="convolution"), "stem is 'convolution'; allowed: 'patch', 'conv'"),
    (dict(name="performer", attn_drop=0.1), "attn_drop is 0.1 but Performer never forms .*; use attn_drop=0"),
    (dict(name="fastformer", attn_drop=0.1), "attn_drop is 0.1 but Fastformer has no .*; use attn_drop=0"),
    (dict(name="none", attn_drop=0.1), "attn_drop is 0.1 but NoMixing has no .*; use attn_drop=0"),
    (dict(name="resnet50", attn_drop=0.1), "attn_drop is 0.1 but resnet50 has no such part; leave it out"),
    (dict(name="resnet50", proj_drop=0.1), "proj_drop is 0.1 but resnet50 has no such part"),
    (dict(name="resnet50", embed_dims=(96, 96, 96, 96)), "embed_dims is .* but resnet50 has no such part"),
    (dict(name="resnet50", r=16), "but resnet50 has no such part; leave it out"),
    (dict(name="resnet50", seed=-1), "seed is -1; wanted a whole number from 0"),
]


@pytest.mark.parametrize("wrong, message", IMPOSSIBLE, ids=lambda value: str(value) if isinstance(value, dict) else "")
def test_an_impossible_model_is_refused_before_anything_is_allocated(wrong, message, monkeypatch):
    def allocate(*args, **kwargs):
        raise AssertionError("a layer was created before the check")

    monkeypatch.setattr(torch.nn.Module, "__init__", allocate)
    with pytest.raises(ValueError, match=message):
        mb.build_model(**wrong)


def test_a_whole_configuration_admits_nothing_beside_it():
    with pytest.raises(ValueError, match="change the configuration with .replace"):
        mb.build_model(model_config("softmax", "smoke"), num_classes=3)


# ------------------------------------------------------------------ experiments
def test_an_experiment_takes_its_sizes_from_preset_and_profile():
    experiment = mb.Experiment.preset("small", model="fastformer", seed=3)
    assert experiment.model == model_config("fastformer", "small", seed=3)
    laptop = mb.profile("laptop")
    assert (experiment.data.num_train, experiment.training.epochs) == (laptop.num_train, laptop.epochs)
    assert (experiment.data.img_size, experiment.data.in_chans, experiment.training.seed) == (112, 1, 3)
    smoke = mb.Experiment.preset("small", model="fastformer", profile="smoke")
    assert smoke.data.num_train == mb.profile("smoke").num_train and smoke.model.preset == "small"


def test_an_override_goes_where_it_belongs():
    experiment = mb.Experiment.preset("smoke", model="linformer", r=4, epochs=2, num_train=50, img_size=64, lr=1e-3)
    assert dict(experiment.model.options) == {"r": 4} and experiment.model.img_size == (64, 64)
    assert (experiment.data.img_size, experiment.data.num_train) == (64, 50)
    assert (experiment.training.epochs, experiment.training.lr) == (2, 1e-3)


def test_fingerprints_tell_experiments_apart():
    experiments = [mb.Experiment.preset("smoke", model=name, seed=seed) for name in ALL_MODELS for seed in (0, 1)]
    assert len({experiment.fingerprint for experiment in experiments}) == 2 * len(ALL_MODELS)


@pytest.mark.parametrize("wrong, message", [
    (dict(preset="tiny", model="xca"), "preset is 'tiny'"),
    (dict(preset="small", model="xci"), "model name is 'xci'"),
    (dict(preset="small", model="xca", profile="desktop"), "profile is 'desktop'; allowed: 'smoke', 'laptop', 'full'"),
])
def test_an_unknown_experiment_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        mb.Experiment.preset(**wrong)


def test_the_lists_of_names_agree():
    assert ALL_MODELS == (*MECHANISMS, "resnet50", CONTROL) and set(mb.models.RESNETS) == set(PRESETS)
