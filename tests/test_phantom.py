"""The phantom: reproducible by (seed, index), drawn by the recipe, and free of shortcuts."""

import time

import numpy as np
import pytest
import torch
from scipy import ndimage

from medbench import baselines, phantom
from medbench.phantom import anatomy, drawing

LABEL = {name: k for k, name in enumerate(phantom.CLASSES)}
RAW = dict(histogram_matching=False, decoys=False)


def draw(name, n=24, seed=3, first=0, **options):
    return phantom.generate([LABEL[name]] * n, range(first, first + n), seed=seed, **options)


def with_twin(name, n=24, seed=3, **options):
    """The class and its healthy twins, raw intensities in units of the twin's grey-white median."""
    options = RAW | options
    sick, well = draw(name, n, seed, **options), phantom.twin([LABEL[name]] * n, range(n), seed=seed, **options)
    return sick, sick.images.float().numpy(), well.images.float().numpy()


# --------------------------------------------------------------------------------------------- reproducible
def test_a_sample_depends_on_seed_and_index_alone():
    together = phantom.generate(None, range(70), seed=11, img_size=48, prior="sqrt")
    for rows in ([3], [69, 5, 31], list(range(40, 70))):
        apart = phantom.generate(None, rows, seed=11, img_size=48, prior="sqrt")
        assert torch.equal(apart.labels, together.labels[rows]) and torch.equal(apart.lesion, together.lesion[rows])
        assert (apart.images.int() - together.images[rows].int()).abs().max() <= 1
    other = phantom.generate(together.labels, range(70), seed=12, img_size=48)
    assert (other.images.float() - together.images.float()).abs().flatten(1).mean(1).min() > 2


def test_a_class_draws_the_same_given_or_drawn():
    drawn = phantom.generate(None, range(20), seed=2, img_size=40, prior="uniform")
    given = phantom.generate(drawn.labels, range(20), seed=2, img_size=40)
    assert torch.equal(drawn.images, given.images)


def test_generator_keys_never_collide_within_a_seed():
    keys = {drawing.key(5, i) for i in range(100_000)}
    assert len(keys) == 100_000
    assert len({drawing.key(s, 7) for s in range(1000)}) > 995


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_draws_the_same_image():
    here = phantom.generate(None, range(30), seed=1, prior="uniform")
    there = phantom.generate(None, range(30), seed=1, prior="uniform", device="cuda")
    assert (here.images.int() - there.images.cpu().int()).abs().float().mean() < 0.1
    assert (here.lesion ^ there.lesion.cpu()).float().mean() < 1e-3


# --------------------------------------------------------------------------------------------- classes and masks
def test_classes_are_the_study_s():
    assert len(phantom.CLASSES) == 10 and list(phantom.CLASS_NAMES) == list(phantom.CLASSES)
    assert sum(phantom.STUDY_COUNTS.values()) == 44_671
    assert phantom.prior("study")[LABEL["normal"]] == pytest.approx(27374 / 44671)
    roots = sum(v**0.5 for v in phantom.STUDY_COUNTS.values())
    assert phantom.prior("sqrt")[LABEL["normal"]] == pytest.approx(27374**0.5 / roots)
    labels = phantom.generate(None, range(3000), seed=0, img_size=16, prior="sqrt").labels
    seen = np.bincount(labels, minlength=10) / 3000
    assert np.abs(seen - phantom.prior("sqrt")).max() < 0.03


@pytest.mark.parametrize("name", phantom.CLASSES)
@pytest.mark.parametrize("contrast", phantom.CONTRASTS)
def test_every_lesion_has_a_mask(name, contrast):
    batch = draw(name, 12, img_size=75, contrast=contrast)
    assert batch.images.shape == batch.lesion.shape == (12, 75, 75) and batch.images.dtype == torch.uint8
    area = batch.lesion.flatten(1).float().mean(1)
    assert not area.any() if name == "normal" else ((area > 0).float().mean() > 0.9 and area.max() < 0.2)
    assert batch.images.float().std() > 20


def test_masks_do_not_depend_on_the_resolution():
    for name in ("acute_infarct", "intra", "white_matter_changes"):
        small, large = draw(name, 10, img_size=64), draw(name, 10, img_size=128)
        shrunk = torch.nn.functional.avg_pool2d(large.lesion[:, None].float(), 2)[:, 0] > 0.5
        assert (shrunk & small.lesion).sum() / (shrunk | small.lesion).sum() > 0.7


@pytest.mark.parametrize("name", phantom.CLASSES)
def test_the_twin_is_the_same_head(name):
    sick, image, well = with_twin(name, 12)
    touched = sick.lesion | sick.affected
    assert not phantom.twin([LABEL[name]] * 12, range(12), seed=3).lesion.any()
    change = np.abs(image - well)
    if name == "normal":
        assert change.max() == 0
    else:
        assert change[touched.numpy()].mean() > 6 * change[~touched.numpy()].mean()
        assert change[sick.lesion.numpy()].mean() > 5


def test_difficulty_shrinks_and_fades_lesions():
    easy, hard = (draw("focal_flair_hyper", 24, difficulty=d, **RAW) for d in (0.0, 2.0))
    assert hard.lesion.sum() < 0.6 * easy.lesion.sum()
    well = phantom.twin([LABEL["focal_flair_hyper"]] * 24, range(24), seed=3, **RAW).images.float()
    gain = [(b.images.float() - well)[b.lesion].mean() for b in (easy, hard)]
    assert gain[1] < 0.7 * gain[0]


@pytest.mark.parametrize("difficulty", [0.0, 1.0, 1.5])
def test_dark_vessels_stay_darker_than_fluid(difficulty):
    """More contrast must not take them below zero, where a magnitude would be bright again."""
    labels = [LABEL["arteriovenous_anomaly"]] * 24
    sick = phantom.generate(labels, range(24), seed=3, difficulty=difficulty, **RAW)
    well = phantom.twin(labels, range(24), seed=3, **RAW).images.float()
    dark = sick.lesion & (sick.images.float() < 0.5 * well) & (well > 80)
    assert dark.sum() > 200 and sick.images[dark].float().median() < 20


def test_confounding_ties_a_mark_to_the_label():
    labels = [LABEL["normal"], LABEL["intra"]] * 60
    def first_site(confounding):
        images = phantom.generate(labels, range(120), seed=4, img_size=64, confounding=confounding).images
        marked = images[:, 2:4, 2:9].float().mean((1, 2)) > 250
        return marked[1::2].float().mean() - marked[0::2].float().mean()
    assert first_site(1.0) == 1 and 0.2 < first_site(0.5) < 0.8 and first_site(0.0) == 0


# --------------------------------------------------------------------------------------------- five distinctions
def dark_change(name, where, n=40):
    """Share of fluid-dark pixels, image minus twin, where `where` picks by the distances in px (outside, inside)."""
    sick, image, well = with_twin(name, n)
    level = np.median(well[well > 60])
    out = []
    for k in range(n):
        mask = sick.lesion[k].numpy()
        if mask.any():
            near = where(ndimage.distance_transform_edt(~mask), ndimage.distance_transform_edt(mask))
            dark, before = (((picture < 0.55 * level) & near).sum() / near.sum() for picture in (image[k], well[k]))
            out.append(dark - before)
    return np.mean(out)


def test_acute_effaces_sulci_chronic_widens_them():
    def around(out, _): return (out > 0) & (out < 6)
    assert dark_change("acute_infarct", around) < -0.005
    assert dark_change("chronic_infarct", around) > 0.015


def ventricle_growth(name, n=80):
    """Fluid near the midline on the lesion's side, over the twin's, minus one; at the lateral ventricles' height."""
    sick, image, well = with_twin(name, n)
    growth = []
    for k in range(n):
        mask = sick.lesion[k].numpy()
        if mask.sum() < 60 or not 2 <= sick.z[k] <= 26:
            continue
        middle = np.zeros_like(mask)
        left = ndimage.center_of_mass(mask)[1] < 56
        middle[36:76, 40:56 if left else 72] = True
        middle[36:76, :56 if left else 56] &= left
        level = np.median(well[k][well[k] > 60])
        fluid = [((picture < 0.5 * level) & middle & ~mask).sum() for picture in (image[k], well[k])]
        growth.append(fluid[0] / max(fluid[1], 20) - 1)
    return np.mean(growth)


def test_chronic_pulls_intra_pushes():
    assert ventricle_growth("chronic_infarct") > 0.15
    assert ventricle_growth("intra") < -0.1


def core_contrast(name, n=40):
    """Brightness of the innermost third of lesion and oedema over that of the rest."""
    sick, image, _ = with_twin(name, n)
    ratios = []
    for k in range(n):
        bright = sick.images[k] > 1.15 * np.median(image[k][image[k] > 60])
        whole = (sick.lesion[k] | (sick.affected[k] & bright)).numpy()
        depth = ndimage.distance_transform_edt(ndimage.binary_fill_holes(whole))
        inner = depth > 0.66 * depth.max()
        ratios.append(image[k][inner].mean() / image[k][whole & ~inner].mean())
    return np.array(ratios)


def test_a_mass_has_a_core_oedema_has_none():
    assert np.abs(core_contrast("edema") - 1).mean() < 0.15
    assert np.abs(core_contrast("intra") - 1).mean() > 0.3


def test_focal_is_one_white_matter_changes_are_many_and_bilateral():
    def foci(name):
        batch = draw(name, 40)
        counts = [ndimage.label(m)[1] for m in batch.lesion.numpy()]
        left, right = batch.lesion[:, :, :56].flatten(1).sum(1), batch.lesion[:, :, 56:].flatten(1).sum(1)
        return np.mean(counts), (torch.minimum(left, right) > 0.2 * torch.maximum(left, right)).float().mean()
    one, many = foci("focal_flair_hyper"), foci("white_matter_changes")
    assert one[0] < 1.5 and many[0] > 4 and one[1] < 0.2 and many[1] > 0.75


def test_extra_sits_on_the_dura_intra_has_tissue_all_round():
    def tissue_round(name):
        sick, image, _ = with_twin(name, 40)
        shares = []
        for k in range(40):
            mask = ndimage.binary_fill_holes(sick.lesion[k].numpy())
            ring = ndimage.binary_dilation(mask, iterations=3) & ~ndimage.binary_dilation(mask, iterations=1)
            shares.append((image[k][ring] > 0.6 * np.median(image[k][image[k] > 60])).mean())
        return np.mean(shares)
    assert tissue_round("extra") < 0.7 < 0.8 < tissue_round("intra")


# --------------------------------------------------------------------------------------------- parts
def test_push_moves_tissue_outwards_and_pull_widens_the_middle():
    x, y = torch.tensor([[[20.0]]]), torch.tensor([[[0.0]]])
    assert drawing.push(x, y, 0.0, 0.0, 15.0, 0.6)[0] < 20 and drawing.pull(x, y, 0.0, 0.0, 25.0, 0.3)[0] < 20
    far = torch.tensor([[[200.0]]])
    assert torch.allclose(drawing.push(far, y, 0.0, 0.0, 15.0, 0.6)[0], far)
    assert torch.allclose(drawing.pull(far, y, 0.0, 0.0, 25.0, 0.3)[0], far)


def test_the_cistern_above_the_sella_is_fluid():
    where = anatomy.sample("tissue", torch.tensor([-22 - anatomy.Z_LOW]), torch.zeros(1, 1, 1), torch.zeros(1, 1, 1))
    assert where[0, anatomy.MAPS.index("csf")] > 0.9


@pytest.mark.parametrize("wrong, said", [
    (dict(prior="flat"), "prior is 'flat'"), (dict(contrast="ct"), "contrast is 'ct'"),
    (dict(confounding=2.0), "confounding is 2.0"), (dict(img_size=4), "img_size is 4"),
    (dict(difficulty=-1.0), "difficulty is -1.0"),
])
def test_wrong_options_are_named(wrong, said):
    with pytest.raises(ValueError, match=said):
        phantom.generate(None, [0], seed=0, **wrong)


def test_wrong_labels_are_named():
    with pytest.raises(ValueError, match="1 labels for 2 indices"):
        phantom.generate([0], [0, 1], seed=0)
    with pytest.raises(ValueError, match="labels run from 3 to 10"):
        phantom.generate([3, 10], [0, 1], seed=0)


# --------------------------------------------------------------------------------------------- no shortcuts
def shortcut_sets(n_train, n_test, **options):
    train = phantom.generate(None, range(n_train), seed=21, prior="sqrt", **options)
    test = phantom.generate(np.arange(n_test) % 10, range(10**7, 10**7 + n_test), seed=21, **options)
    return train, test


def scores(train, test):
    return baselines.shortcuts(train.images.numpy(), train.labels.numpy(), test.images.numpy(), test.labels.numpy(),
                               classes=phantom.CLASSES)


def test_the_slice_says_nothing():
    labels = np.arange(20_000) % 10
    heights = phantom.slice_levels(labels, np.arange(20_000), seed=0)
    found = baselines.slice_level(heights[:10_000], labels[:10_000], heights[10_000:], labels[10_000:],
                                  classes=phantom.CLASSES)
    assert found.balanced_accuracy.value <= 0.20
    before = phantom.slice_levels(labels, np.arange(20_000), seed=0, sella_slices=False)
    assert before[labels == LABEL["pituatary_lesion"]].max() < before[labels != LABEL["pituatary_lesion"]].min()


@pytest.mark.slow
def test_no_shortcut_scores_above_its_bound():
    train, test = shortcut_sets(9000, 3000)
    found = scores(train, test)
    assert found["intensity_statistics"].macro_auroc.value <= 0.65
    assert found["thumbnails_28"].balanced_accuracy.value <= 0.40
    normal = phantom.generate([LABEL["normal"]] * 1500, range(2 * 10**7, 2 * 10**7 + 1500), seed=21)
    images, labels, masks = (np.concatenate([getattr(part, name) for part in (test, normal)])
                             for name in ("images", "labels", "lesion"))
    covered = baselines.masked_lesions(images, labels, masks, normal=LABEL["normal"], classes=phantom.CLASSES)
    assert max(covered.values()) <= 0.60, covered


def test_without_the_cures_the_shortcuts_are_there():
    options = dict(img_size=56, histogram_matching=False, sella_slices=False, decoys=False)
    before, after = scores(*shortcut_sets(1200, 600, **options)), scores(*shortcut_sets(1200, 600, img_size=56))
    assert before["intensity_statistics"].macro_auroc.value > 0.70
    assert after["intensity_statistics"].macro_auroc.value < 0.60


@pytest.mark.slow
def test_three_hundred_images_a_second_on_two_cores():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    phantom.generate(range(10), range(10), seed=0)
    start = time.process_time()
    phantom.generate(None, range(512), seed=0, prior="sqrt")
    seconds = (time.process_time() - start) / 512
    torch.set_num_threads(before)
    assert seconds < 2 / 300, f"{1000 * seconds:.2f} ms of CPU time an image; two cores draw {2 / seconds:.0f} a second"


# --------------------------------------------------------------------------------------------- patients
def patients(indices, **more):
    indices = np.asarray(indices)
    return phantom.generate(indices // 5 % 10, indices, seed=8, img_size=64, slices_per_patient=5, **more)


def test_slices_of_a_patient_share_head_and_lesion_and_differ_in_height_and_noise():
    batch, heights = patients(range(100)), patients(range(100)).z.reshape(20, 5)
    flat = batch.images.flatten(1).float()
    alike = torch.corrcoef(flat).fill_diagonal_(-1)
    nearest = alike.argmax(1) // 5
    assert (nearest == torch.arange(100) // 5).float().mean() > 0.95
    assert alike.max() < 0.9999 and (heights.max(1).values - heights.min(1).values).max() <= 2 * phantom.REACH
    assert (heights != heights[:, :1]).any(1).float().mean() > 0.9
    masks = batch.lesion.reshape(20, 5, -1).float()
    sick = masks[:, 0].sum(1) > 20
    shared = (masks.min(1).values.sum(1) / masks.max(1).values.sum(1))[sick]
    assert sick.sum() >= 12 and shared.median() > 0.5                       # the lesion stays where it is
    other = masks[sick][:, 0]
    crossed = torch.minimum(other[:-1], other[1:]).sum(1) / torch.maximum(other[:-1], other[1:]).sum(1)
    assert crossed.median() < 0.1


def test_a_patient_keeps_the_level_of_its_class():
    levels = patients(range(600)).z.reshape(120, 5)
    assert ((levels < -10).all(1) | (levels > -10).all(1)).all() and levels.min() >= -30 and levels.max() <= 48


def test_a_slice_of_a_patient_depends_on_its_number_alone():
    whole, alone = patients(range(15)), patients([7])
    assert torch.equal(whole.images[7], alone.images[0]) and torch.equal(whole.lesion[7], alone.lesion[0])
    drawn = phantom.generate(None, range(50), seed=8, img_size=32, slices_per_patient=5).labels.reshape(10, 5)
    assert (drawn == drawn[:, :1]).all() and len(set(drawn[:, 0].tolist())) > 2
    with pytest.raises(ValueError, match="slices_per_patient is 0"):
        phantom.generate(None, [1], seed=8, slices_per_patient=0)
