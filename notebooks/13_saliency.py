# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Saliency
#
# ```{admonition} In this chapter
# :class: note
# **You will learn** to draw what a decision depends on in four ways, to ask whether a map tells anything about the model,
# and to score where it points when the answer is known.
# **You need** chapters 01 and 10.
# **Time**: 30 minutes, exercises included.
# ```

# %% tags=["parameters"]
profile = "laptop"
device = "auto"
seed = 0

# %%
import pandas as pd

import medbench as mb
from medbench.book import pointing, start
from medbench.book.exercises import check

book = start("13_saliency", globals())

# %% [markdown]
# ## The claim, and what would make it true
#
# The study {cite}`study2022` shows saliency maps of one model, Fastformer, and notes no major differences to the others.
# It concludes:
#
# > {sentence}`study-2022/14_results:claim.interpretability`
#
# Its heading says *integrated gradients*; its text describes the plain magnitude of the gradient. What would make the
# claim true? All models, not one. A score, not a look. A baseline that knows no model, for a map that shows edges looks
# good on any image. And a test whether the map depends on the trained weights at all.
#
# On the phantom the answer is known: the lesion was drawn, so we have its mask.
#
# ```{admonition} Predict before you run
# :class: tip
# How often does the brightest pixel of a map lie inside the lesion, when the model is right: nearly always, half of the
# time, or hardly ever? And will an edge detector, which knows nothing, do worse?
# ```
#
# ## All models, one image
#
# The study's three columns, for every model: the image, the map, the map over the image. The lesion is outlined in the
# last. The map is the magnitude of the gradient of the class's logit, as in the study.

# %%
models, decided, data, drawn = pointing.load_models(book)
grey = mb.saliency.mean_grey(data.train.images)
one = pointing.shown(decided, data.test)
maps = {name: pointing.maps_of("gradient", model, data.test, [one], grey, book.profile) for name, model in models.items()}

# %% mystnb={"image": {"alt": "Eight rows, one a model, three columns: the same drawn brain slice with an intra-axial lesion, the gradient map of the model, and the map over the slice with the lesion outlined. Bright pixels cluster near the lesion in some rows and are scattered in others."}}
labels = [mb.plots.style(name).label for name in maps]
mb.plots.saliency_grid([data.test.images[one]] * len(maps), [m.map[0] for m in maps.values()],
                       [data.test.masks[one]] * len(maps), labels);

# %% [markdown]
# Do they differ? All these answers are right, for the image was chosen so; and still the brightest spots of some maps lie
# outside the outline. One image cannot tell why. We need many images and a number.
#
# ## Four ways to draw a map
#
# - **Gradient**: how strongly does the logit answer to a small change of a pixel {cite}`simonyan2014`?
# - **SmoothGrad**: the same, averaged over noisy copies {cite}`smilkov2017`.
# - **Integrated gradients**: the gradient along the way from a grey image to this one {cite}`sundararajan2017`. The map
#   then adds up to the difference of the two logits. How far it does not is its *completeness error*.
# - **Occlusion**: cover a square, and see how far the logit falls {cite}`zeiler2014`.
#
# captum {cite}`kokhlikyan2020` computes them. Here is softmax attention in all four. Integrated gradients take 64 steps, and
# 128 where the map is then more than {defined}`5 %` from complete; trained models would often need many hundreds for
# {defined}`1 %`, which takes minutes a model here. What stays incomplete is counted below.

# %% mystnb={"image": {"alt": "Four rows, one a method, three columns: slice, map, map over slice. Gradient and SmoothGrad are speckled, integrated gradients finer, occlusion coarse blocks."}}
four = [pointing.maps_of(method, models["softmax"], data.test, [one], grey, book.profile) for method in pointing.METHODS]
mb.plots.saliency_grid([data.test.images[one]] * 4, [m.map[0] for m in four], [data.test.masks[one]] * 4,
                       [m.method.replace("_", " ") for m in four]);

# %% [markdown]
# Four methods, four pictures of one decision. That alone should make us careful with any single one.
#
# ## Where do they point?
#
# For each model we take test images that have a lesion and that it classifies correctly. Two scores: **pointing**, how
# often the strongest pixel lies in the lesion {cite}`zhang2018`, and **mass**, the share of the map inside it. Both are
# given above chance, which is the lesion's share of the image.

# %%
found, drawings, few = {}, {}, book.profile.saliency_images
for name, model in models.items():
    for method in pointing.METHODS:
        count = book.profile.localised_images if method in pointing.CHEAP else few
        chosen = pointing.explained(decided[name], data.test, count)
        maps = drawings[name, method] = pointing.maps_of(method, model, data.test, chosen, grey, book.profile)
        found[name, method] = pointing.scores(maps, data.test, chosen, book.profile.bootstrap)
        mb.results.record(f"saliency.{name}", found[name, method], to=book.results, seed=book.seed)
pointing.table(found, "pointing_above_chance")

# %% mystnb={"image": {"alt": "Pointing of gradient maps above chance for every model with 95 percent intervals, zero marked."}}
mb.plots.forest(pointing.forest_table(found, "pointing_above_chance", "gradient"), xlabel="pointing above chance (1)");

# %% [markdown]
# Right of zero: better than a random pixel. Gradient maps of softmax attention point into the lesion in
# {value}`13_saliency:saliency.softmax.pointing.gradient|.0%` of its correct images. Is that the model's merit?
#
# ## Better than an edge detector?
#
# A lesion has an outline. A detector of edges points at outlines without any model. How often does its strongest edge lie in
# the lesion, and which share of all its edges? The last two columns: by how much
# the gradient maps exceed the detector.

# %%
edges = {name: found[name, "gradient"] for name in models}
pd.DataFrame({name: {"edges, pointing": pointing.cell(s["edge_pointing"]), "edges, mass": pointing.cell(s["edge_mass"]),
                     "pointing above edges": pointing.cell(s["pointing_above_edges"]),
                     "mass above edges": pointing.cell(s["mass_above_edges"])} for name, s in edges.items()}).T

# %% [markdown]
# The strongest edge of a head is that of the skull, so the detector hardly ever points into the lesion: to beat it in
# pointing is easy. Mass is the harder test. Where an interval holds zero or lies below it, the map has no more to say about
# the lesion's place than its edges have.
#
# ## Does the mechanism matter?
#
# Now the study's claim. Each model against softmax attention, mass inside the lesion, gradient maps.

# %% mystnb={"image": {"alt": "Difference of each model's relevance mass to softmax with 95 percent intervals and verdicts."}}
rows = pointing.paired(found, "mass", "gradient")
for row in rows:
    mb.results.record(f"saliency.{row['model']}", row, to=book.results)
mb.results.record("saliency", [pointing.conclusion(rows), pointing.by_method(found)], to=book.results)
table = pd.DataFrame(rows).assign(verdict=[row["context"]["verdict"] for row in rows])
mb.plots.forest(table.drop(columns=["quantity", "unit"]), xlabel="mass inside the lesion minus that of softmax (1)");

# %% [markdown]
# {sentence}`13_saliency:saliency.conclusion`
#
# *Not told from it* means that the interval holds zero. Each model is scored on the images that it gets right, so the images
# differ between models. Where a model lies above or below, the claim that the mechanism makes no difference does not hold
# for this pair of runs; where none does, it has not been refuted, which is less than being shown. Beside the mechanisms look
# at `none`, which lets no token see another inside a stage: what it reaches owes nothing to mixing.
#
# And by the other methods, on fewer images? {sentence}`13_saliency:saliency.conclusion.methods` So a verdict on mechanisms
# by one kind of map is a verdict on that kind of map, too. Also, "inside" is strict here: a lesion pushes and swells
# tissue around it (the second mask of chapter 01), and a map that lights up there counts as a miss.
#
# ## Would an untrained model draw the same map?
#
# We shuffle all weights of a model and draw the gradient maps again {cite}`adebayo2018`. If they look alike, the map shows
# the image, not what was learned. We measure likeness by Spearman's rank correlation of the magnitudes over the pixels,
# averaged over images.

# %%
sane = {}
for name, model in models.items():
    chosen = pointing.explained(decided[name], data.test, few)
    x = pointing.as_input(data.test, chosen, model)
    sane[name] = mb.saliency.randomisation(mb.saliency.gradient, model, x, pointing.classes(data.test, chosen))
    mb.results.record(f"saliency.{name}", sane[name], to=book.results, seed=book.seed)
pd.DataFrame({name: s.mean for name, s in sane.items()}).T.round(2)

# %% [markdown]
# Near zero is good; a common limit is {defined}`0.2`. Where the correlation is high, part of the map is the image and the
# architecture, trained or not, and part of its mass in the lesion may be, too. The gradient maps were tested here,
# and no other method.
#
# ## Does the map say what the model uses?
#
# Delete pixels in the order of the map: the probability of the class should fall quickly. Insert them in that order: it
# should rise quickly {cite}`petsiuk2018`. The gain is against a random order. The maps are those of integrated gradients;
# the first column says how many of them are complete to {defined}`5 %`.
#
# And on a phantom we can ask more. The last column is the rank correlation of the map with what the lesion did: the
# difference between the image and its healthy twin.

# %%
faithful = {}
for name, model in models.items():
    chosen = pointing.explained(decided[name], data.test, few)
    maps = drawings[name, "integrated_gradients"]
    curves = mb.saliency.insertion_deletion(model, pointing.as_input(data.test, chosen, model), maps, baseline=grey)
    twin = pointing.twin_agreement(maps, data.test, chosen, drawn)
    mb.results.record(f"saliency.{name}.faithful", maps, curves, twin, to=book.results, seed=book.seed)
    faithful[name] = {"complete maps": f"{int(maps.complete.sum())} of {len(maps)}",
                      **{key.replace("_", " "): pointing.cell(curves[key]) for key in ("deletion_gain", "insertion_gain")},
                      "correlation with the lesion's doing": pointing.cell(twin[0])}
pd.DataFrame(faithful).T

# %% [markdown]
# A gain is an area between two curves of probability, from 0 to 1. Where its interval holds zero it says nothing: pixels in
# a random order would have done as well. The correlation cannot come near one: most pixels did not change at all, so their
# order is arbitrary. Deleted pixels leave a grey
# hole that no brain has. A model may answer to the hole and not to what is missing. So these
# curves compare maps of one model better than they compare models.
#
# ## What we may conclude
#
# - A map of one image proves nothing. Two scores, chance and an edge detector make it a measurement.
# - The claim that approximation does not affect interpretability can be tested, for these runs and these drawings.
#   {sentence}`13_saliency:saliency.conclusion`
# - A map that points at the lesion does not show that the model reasons like a physician.
#
# These images are drawings with known answers; they rank how models learn this drawing and say nothing about patients.
# For research and teaching, not for clinical use.
#
# ## Exercises
#
# ````{exercise} Completeness
# :label: ex-saliency-completeness
#
# Write `integrated(f, x, baseline, steps)`: integrated gradients of `f`, which gives one number for one image. The result
# has the shape of `x` and adds up to `f(x) - f(baseline)` within a hundredth.
# ````

# %% tags=["skip-execution"]
def integrated(f, x, baseline, steps):
    ...

check("saliency.completeness", integrated)


# %% [markdown]
# ````{solution} ex-saliency-completeness
# :class: dropdown
#
# ```python
# import torch
#
# def integrated(f, x, baseline, steps):
#     total = torch.zeros_like(x)
#     for step in range(steps):
#         point = (baseline + (step + 0.5) / steps * (x - baseline)).requires_grad_(True)
#         total += torch.autograd.grad(f(point), point)[0]
#     return total / steps * (x - baseline)
#
# check("saliency.completeness", integrated)
# ```
# ````
#
# ````{exercise} A map that looks right
# :label: ex-saliency-randomisation
#
# Write `passes(trained, randomised, limit)`: maps $(n, H, W)$ of the same images from the trained model and from one with
# random weights. Correlate the *magnitudes* image by image and return whether the mean absolute correlation is at most
# the limit.
# ````

# %% tags=["skip-execution"]
def passes(trained, randomised, limit):
    ...

check("saliency.randomisation", passes)

# %% [markdown]
# ````{solution} ex-saliency-randomisation
# :class: dropdown
#
# ```python
# import torch
#
# def passes(trained, randomised, limit):
#     def one(a, b):
#         return torch.corrcoef(torch.stack([a.abs().flatten(), b.abs().flatten()]))[0, 1].abs().nan_to_num(0)
#     return bool(torch.stack([one(a, b) for a, b in zip(trained, randomised)]).mean() <= limit)
#
# check("saliency.randomisation", passes)
# ```
# ````
#
# **An open question.** Lesions about as grey as the baseline get almost nothing from integrated gradients: there is no way to
# go from the one to the other. Which baseline would you choose for them? The phantom could give you the healthy twin. What
# would a hospital take?
#
# ## Quiz
#
# ```{dropdown} 1. What is chance in the pointing game?
# The share of the image that the lesion covers.
# ```
#
# ```{dropdown} 2. Why an edge detector as a baseline?
# Lesions have outlines. A map that only shows outlines would point at them without knowing anything.
# ```
#
# ```{dropdown} 3. A map stays the same when all weights are shuffled. What does it show?
# The image.
# ```
#
# ```{dropdown} 4. What does a large completeness error mean?
# That the steps were too few: the map does not add up to what it should explain.
# ```
#
# **Three misconceptions**
#
# - *"The map shows where the model looks."* It shows what the logit answers to, in one sense of four.
# - *"Attention weights are an explanation."* See chapter 03.
# - *"It points at the lesion, so it is right for the right reason."* It may point there and decide by something else.
#
# ## Further reading
#
# - {cite}`adebayo2018`: sanity checks that some well-known methods fail.
# - {cite}`sundararajan2017`: what a map should satisfy.
# - {cite}`arun2021,saporta2022`: how saliency fares on medical images.
# - {cite}`sturmfels2020`: what the baseline does.
