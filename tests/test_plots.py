"""Every figure takes a table, has units on its axes, an opaque background, and can be read in grey."""

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from medbench import config, plots


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def long_table(quantity="balanced_accuracy", unit="1"):
    value = np.linspace(0.7, 0.8, 4)
    return pd.DataFrame({"model": ["softmax", "linformer", "xca", "none"], "quantity": quantity, "value": value,
                         "low": value - 0.01, "high": value + 0.02, "unit": unit, "device": "a-cpu"})


def wide_table():
    return pd.DataFrame({"model": ["softmax", "xca", "none"], "latency_ms": [3.0, 2.0, 2.5], "top1": [0.9, 0.8, 0.7],
                         "top1_low": 0.6, "top1_high": 0.95})


def lone_mask():
    return np.pad(np.ones((4, 4), bool), 6)


FIGURES = {
    "who_mixes": lambda: plots.who_mixes(np.eye(5), bar="norm (1)"),
    "mixing_maps": lambda: plots.mixing_maps(np.ones((16, 16)), {"a": (np.eye(16), 5)}, (4, 4), lone_mask()),
    "curves": lambda: plots.curves(wide_table(), "latency_ms", "top1", log=True),
    "cost_curves": lambda: plots.cost_curves(pd.DataFrame(
        {"model": ["xca"] * 2, "num_tokens": [4, 16], "closed_form": [8, 32], "counted": [8, 32]})),
    "gallery": lambda: plots.gallery(np.ones((7, 16, 16)), list("abcdefg"), [lone_mask()] * 7),
    "saliency_grid": lambda: plots.saliency_grid(np.ones((2, 16, 16)), np.ones((2, 16, 16)), [lone_mask()] * 2, "ab"),
    "scores": lambda: plots.scores(long_table(), highlight="xca", lines={"chance": 0.1}),
    "forest": lambda: plots.forest(long_table("difference", "percentage point").assign(verdict="worse"), margin=2),
    "latency": lambda: plots.latency(long_table("latency", "ms")),
    "samples": lambda: plots.samples(pd.DataFrame({"model": ["xca"], "samples": [[1.0, 2.0, 9.0]]})),
    "pareto": lambda: plots.pareto(wide_table(), "latency_ms", "top1", log=True),
    "time_against_macs": lambda: plots.time_against_macs(wide_table().assign(gmacs=1.0)),
    "roofline": lambda: plots.roofline(pd.DataFrame({"model": ["xca"], "intensity": [3.0], "rate": [1e9]}),
                                       {"float32": 1e11, "bfloat16": 1e12}, 1e10),
    "pyramid": lambda: plots.pyramid(np.ones((16, 16)), pd.DataFrame(
        {"rows": [4, 2], "columns": [6, 3], "channels": [16, 32], "heads": [1, 2], "blocks": [1, 3]})),
    "stacked": lambda: plots.stacked(pd.DataFrame({"stage": [1, 2], "mixing": [3, 0], "MLP": [4, 5]}), "stage",
                                     ("mixing", "MLP"), ylabel="multiply-adds (GMAC)"),
    "confusion": lambda: plots.confusion([[3, 1], [0, 0]], ["a_b", "c"]),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figure_is_opaque_and_draws(name):
    drawn = FIGURES[name]()
    axes = np.atleast_1d(drawn).ravel()
    fig = axes[0].figure
    fig.canvas.draw()
    pixels = np.asarray(fig.canvas.buffer_rgba())
    assert (pixels[..., 3] == 255).all()
    assert (pixels[0, 0, :3] == 255).all() and pixels.std() > 1


@pytest.mark.parametrize("name", ["who_mixes", "curves", "cost_curves", "scores", "forest", "latency", "samples",
                                  "pareto", "time_against_macs", "roofline", "confusion"])
def test_axes_are_named(name):
    ax = FIGURES[name]()
    assert ax.get_xlabel()
    assert ax.get_ylabel() or [t.get_text() for t in ax.get_yticklabels()][0]


def test_every_model_has_a_look_that_survives_grey():
    assert set(plots.STYLE) == set(config.ALL_MODELS)
    for part in ("label", "color", "marker", "linestyle"):
        assert len({str(getattr(s, part)) for s in plots.STYLE.values()}) == len(plots.STYLE), part
    spare = [plots.style(f"variant {i}", i) for i in range(4)]
    for part in ("color", "marker", "linestyle"):
        assert len({str(getattr(s, part)) for s in [*plots.STYLE.values(), *spare]}) == len(plots.STYLE) + 4, part
    for s in plots.STYLE.values():
        r, g, b = to_rgb(s.color)
        assert 0.2126 * r + 0.7152 * g + 0.0722 * b < 0.6, f"{s.label} is too pale on white"


def test_markers_under_the_second_roof_are_open():
    table = pd.DataFrame({"model": ["xca", "xca"], "dtype": ["float32", "bfloat16"], "intensity": [3.0, 3.0],
                          "rate": [1e9, 2e9]})
    ax = plots.roofline(table, {"float32": 1e11, "bfloat16": 1e12}, 1e10)
    *_, filled, hollow = ax.get_lines()
    assert hollow.get_markerfacecolor() == "none" != filled.get_markerfacecolor()
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["roof, float32", "roof, bfloat16 (open markers)",
                                                                   "XCA"]


def test_labels_carry_units():
    assert plots.label("latency_ms") == "latency (ms)"
    assert plots.label("macro_auroc", "1") == "macro AUROC"
    assert plots.label("gmacs") == "cost (GMAC)" and plots.label("mmacs") == "cost (MMAC)"
    assert plots.label("val_balanced_accuracy") == "validation balanced accuracy"
    assert plots.label("throughput_images_per_s") == "throughput (images/s)"
    assert plots.label("num_tokens") == "number of tokens"
    assert plots.label("peak_memory", "byte") == "peak memory (byte)"


def test_scores_are_sorted_and_the_interval_is_drawn():
    ax = plots.scores(long_table().iloc[::-1], highlight="xca")
    assert [t.get_text() for t in ax.get_yticklabels()] == ["softmax", "Linformer", "XCA", "none (control)"]
    assert [t.get_fontweight() for t in ax.get_yticklabels()].count("bold") == 1
    ends = np.concatenate([line.get_segments()[0] for c in ax.containers for line in c.lines[2]])
    np.testing.assert_allclose(sorted({round(e, 6) for e in ends[:, 0]})[0], 0.69)
    np.testing.assert_allclose(ends[:, 0].max(), 0.82)


def test_a_missing_interval_is_no_error():
    plots.scores(long_table().assign(low=np.nan, high=np.nan))
    plots.scores(long_table().drop(columns=["low", "high"]))


def test_pareto_front_holds_the_models_that_nobody_beats():
    ax = plots.pareto(wide_table(), "latency_ms", "top1")
    front = ax.lines[0].get_xydata()
    np.testing.assert_allclose(front, [[2.0, 0.8], [3.0, 0.9]])


def test_absent_class_is_blank():
    share = plots.confusion([[3, 1], [0, 0]], ["a", "b"]).images[0].get_array()
    np.testing.assert_allclose(share[0], [0.75, 0.25])
    assert np.isnan(np.asarray(share.filled(np.nan))[1]).all()


def test_failures_are_the_surest_mistakes_after_the_prior():
    class Split:
        images, labels, masks = np.zeros((4, 8, 8), np.uint8), np.array([0, 0, 1, 1]), None
    logits = np.array([[0.0, 1.0], [0.0, 3.0], [0.0, 9.0], [0.2, 0.0]])
    titles = [ax.get_title() for ax in plots.failures(logits, Split, ["a_x", "b"], count=2)]
    assert titles[0].startswith("a x\ntaken for\nb (0.95)") and "(0.73)" in titles[1]
    with_prior = plots.failures(logits, Split, ["a_x", "b"], prior=[0.1, 0.9], count=4)      # log 9 = 2.2 saves image 0
    assert [ax.get_title()[:-7] for ax in with_prior] == ["b\ntaken for\na x", "a x\ntaken for\nb"]
    with pytest.raises(ValueError, match="no failure"):
        plots.failures(np.array([[9.0, 0], [9, 0], [0, 9], [0, 9]]), Split, ["a", "b"])


def test_wrong_tables_are_refused():
    with pytest.raises(ValueError, match="lacks low, high; it has model"):
        plots.forest(long_table()[["model", "value"]])
    with pytest.raises(ValueError, match="no rows"):
        plots.scores(long_table().iloc[:0])
    with pytest.raises(ValueError, match="one axis cannot show a, b"):
        plots.scores(long_table().assign(quantity=["a", "a", "b", "b"]))
    with pytest.raises(ValueError, match="square"):
        plots.confusion([[1, 2]], ["a", "b"])


def test_mixing_maps_ring_the_token_where_it_lies():
    axes = plots.mixing_maps(np.ones((8, 16)), {"a": (np.eye(8), 6)}, (2, 4))          # second row, third column
    np.testing.assert_allclose(axes[1].lines[0].get_xydata(), [[2.5 * 4 - 0.5, 1.5 * 4 - 0.5]])
    assert np.asarray(axes[1].images[1].get_array()).argmax() == 6


def test_drawing_on_given_axes_makes_no_figure():
    _, ax = plots.figure()
    before = plt.get_fignums()
    assert plots.scores(long_table(), ax=ax) is ax and plt.get_fignums() == before
