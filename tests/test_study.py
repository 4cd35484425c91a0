"""The study's figures: the committed files are what the program writes, complete, quoted and sourced."""

import math

import pytest

from medbench import results
from medbench.book import study
from medbench.config import MODELS
from medbench.records import read


def test_the_committed_files_are_what_the_program_writes(tmp_path):
    written = study.main(tmp_path)
    committed = results.edition_root() / results.STUDY
    assert sorted(p.name for p in written) == sorted(p.name for p in committed.glob("*.json"))
    for path in written:
        same = path.read_bytes() == (committed / path.name).read_bytes()
        assert same, f"{path.name} differs from the program; run python -m medbench.book.study"


def test_every_published_figure_is_quoted_with_its_source():
    for file in study.files():
        assert file.records and file.device == results.STUDY
        for record in file.records:
            assert record.source and record.quoted == (not record.name.startswith("derived."))


@pytest.mark.parametrize("name, value", [
    ("cost.softmax.macs_fvcore", 1.91e9), ("cost.resnet50.params", 25.6e6), ("latency.softmax.xeon", 8.904),
    ("latency.fastformer.a100", 0.05), ("accuracy.fastformer.top1", 0.9125), ("claim.fewer_flops", 0.35),
    ("claim.resnet50_flops", 2.5), ("data.images.pituatary_lesion", 83)])
def test_figures_by_name(name, value):
    assert results.value(name, device=results.STUDY) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("name, value, within", [
    ("derived.image_count", 44_671, 0), ("derived.majority_share", 0.613, 5e-4),
    ("derived.fewer_macs_mean", 0.22, 5e-3), ("derived.fewer_macs_best", 0.24, 5e-3),
    ("derived.resnet50_over_softmax", 2.1, 0.05),
    ("derived.top1_half_width", 0.009, 1e-3)])
def test_what_follows_from_the_figures(name, value, within):
    assert math.isclose(results.value(name, device=results.STUDY), value, abs_tol=within, rel_tol=0)


def test_every_model_has_its_row_in_every_table():
    names = {r.name for f in study.files() for r in f.records}
    assert set(study.COSTS) == set(study.TOP1) <= set(MODELS) and len(study.COSTS) == 7
    for model in study.COSTS:
        for quantity in ("cost.{}.params", "cost.{}.macs", "accuracy.{}.top1", "latency.{}.xeon", "latency.{}.a100"):
            assert quantity.format(model) in names


def test_the_phantom_is_drawn_with_the_studys_counts():
    from medbench import phantom
    counts = phantom.STUDY_COUNTS
    if not isinstance(counts, dict):
        counts = dict(zip(phantom.CLASSES, counts))
    assert {key: int(n) for key, n in counts.items()} == study.IMAGES
    assert tuple(counts) == tuple(study.IMAGES)


def test_reading_a_study_file_says_it_is_not_a_measurement():
    file = read(results.edition_root() / results.STUDY / "11_cost.json")
    assert "published" in file.machine["reason"] and file.git == {} and file.created is None
