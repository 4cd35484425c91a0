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
# # Cost
#
# ```{admonition} In this chapter
# :class: note
# **You will learn** to count what a model costs, to see when a counter is blind, and to say how much a cheaper mechanism
# can save at most.
# **You need** chapter 02 for the pyramid and its stages, chapter 10 for the scores.
# **Time**: 25 minutes, exercises included.
# ```

# %% tags=["parameters"]
profile = "laptop"
device = "auto"
seed = 0

# %%
import pandas as pd

import medbench as mb
from medbench.book import benchmark, mechanism, start
from medbench.book.exercises import check

book = start("11_cost", globals())
names = mb.config.ALL_MODELS

# %% [markdown]
# ## The claim, and what would make it true
#
# The study {cite}`study2022` says: efficient transformers use about
# {value}`study-2022/14_results:claim.fewer_flops|.0%` fewer FLOPs than softmax attention. Its own table gives
# {value}`study-2022/14_results:derived.fewer_macs_mean|.0%` on average and
# {value}`study-2022/14_results:derived.fewer_macs_best|.0%` at best.
#
# For such a number to mean anything, four things must be said with it: what is counted (multiply-adds or FLOPs, products
# alone or more), for which image size, for how many classes, and by which counter.
#
# ```{admonition} Predict before you run
# :class: tip
# We count eight models at 224 px. Which mechanism is cheapest? By what share does it undercut softmax attention?
# And what will a popular counter say of softmax when the attention runs as one fused operator?
# ```
#
# ## What is counted
#
# One **MAC** is a multiply-add, and two **FLOP** are one MAC. `macs` holds the products alone: matrix products and
# convolutions. `macs_fvcore` adds what fvcore adds: a price for each element of a norm and of a mean
# {cite}`fvcore`. Both figures are exact. Neither is time; that is chapter 12.

# %%
preset = book.profile.cost_preset
models = {name: mb.build_model(name, preset=preset) for name in names}
size = (1, models["softmax"].config.in_chans, *models["softmax"].config.img_size)
costs = {name: mb.cost.profile(model, size) for name, model in models.items()}
for name, cost in costs.items():
    mb.results.record(f"cost.{name}", cost, to=book.results, preset=preset, setting="faithful", num_classes=10)
table = mb.cost.table(models, size)
benchmark.cost_page(table)

# %% [markdown]
# Softmax attention needs {value}`11_cost:cost.softmax.macs|.2f G`, the cheapest mechanism
# {value}`11_cost:cost.fastformer.macs|.2f G`. A mechanism that keeps its projections can save the share of mixing at
# most, {value}`11_cost:cost.softmax.mixing_share|.1%` of the softmax model. The claim of the study asks for more than
# there is. Only Linformer also saves on projections: since $E(XW) = (EX)W$, it projects $r$ keys and values in place of
# $N$. That is a small part more.
#
# The control `none` lies lower still, at {value}`11_cost:cost.none.macs|.2f G`, because it has no queries and keys.
# *Activations* are the most that intermediate tensors hold at one moment.
#
# ## Can we trust the count?
#
# Every mechanism has a closed form, written down in its file. Counted and computed must be equal to the last
# multiply-add, in every stage.

# %%
def equal(name):
    counted, formula = costs[name].by_stage, mb.cost.closed_form(models[name])
    return all(counted[stage]["macs"] == part["macs"] for stage, part in formula.items())

pd.Series({name: equal(name) for name in names if name != "resnet50"}, name="counted = closed form")

# %% [markdown]
# ## The trap
#
# A modern framework runs softmax attention as one operator. A counter that does not know this operator sees nothing.
# We ask the installed counters about the softmax model, each once as it comes and once with care.

# %%
trap = mb.cost.counters(models["softmax"], size)
mb.results.record("trap.softmax", trap, to=book.results, preset=preset)
print(trap.text)
trap.frame().round(3)

# %% [markdown]
# {sentence}`11_cost:trap.softmax.counters` A share of zero means that the counter agrees with the closed form. Where a
# counter misses the mixing, softmax attention looks as cheap as no mixing at all, and it comes out as the cheapest
# mechanism of the table. The ranking of a whole paper can hang on this. Two cures: count on torch's `meta` device, where
# nothing runs and the operator is taken apart, or hand the counter a rule for the operator. The first exercise does that.
#
# ## How the image size changes it
#
# Mixing of softmax attention grows with the square of the tokens, everything else with their number. So the share of
# mixing depends on the image size, and every claim must carry its size.

# %%
sides = (112, 224, 448)
rows = []
for side in sides:
    for name in names:
        model = mb.build_model(name, preset=preset, img_size=side)
        cost = mb.cost.profile(model, (1, model.config.in_chans, side, side))
        mb.results.record(f"size.{name}.px{side}", cost, to=book.results, preset=preset, img_size=side)
        rows.append({"model": name, "side_px": side, "gmacs": cost.macs / 1e9, "mixing_share": cost.mixing_share})
by_size = pd.DataFrame(rows)
by_size.pivot(index="model", columns="side_px", values="gmacs").round(2).loc[list(names)]

# %% mystnb={"image": {"alt": "Multiply-adds of the eight models at 112, 224 and 448 pixels relative to the control none. Softmax rises steeply to more than twice the control, the others stay close to it."}}
floor = by_size[by_size.model == "none"].set_index("side_px").gmacs
by_size["times_none"] = by_size.gmacs / by_size.side_px.map(floor)
mb.plots.curves(by_size[by_size.model != "resnet50"], "side_px", "times_none", highlight="softmax",
                xlabel="image side (px)", ylabel="multiply-adds relative to no mixing (1)");

# %% [markdown]
# At 112 px the mechanisms hardly differ, and Performer is even dearer than softmax attention: mixing is
# {value}`11_cost:size.softmax.px112.mixing_share|.1%` of softmax's arithmetic. At 224 px it is
# {value}`11_cost:size.softmax.px224.mixing_share|.1%`, at 448 px
# {value}`11_cost:size.softmax.px448.mixing_share|.1%`. An efficient mechanism is a tool for large images. Linformer
# needs a second look: its projected length is capped, so it stays linear here; at the study's setting it grows with
# the tokens and is quadratic after all.
#
# ## Accuracy against cost
#
# Is a cheaper model worse? Chapter 10 trained the preset of this profile. We count those very models and set their
# score against their multiply-adds.

# %%
small = {name: mb.build_model(name, preset=book.profile.preset) for name in names}
size = (1, small["softmax"].config.in_chans, *small["softmax"].config.img_size)
for name, model in small.items():
    mb.results.record(f"trained.{name}", mb.cost.profile(model, size), to=book.results, preset=book.profile.preset)
score = mechanism.recorded("balanced_accuracy", device=book.device).groupby("model")[["value", "low", "high"]].mean()
joined = mb.cost.table(small, size).set_index("model").join(score).reset_index()
joined = joined.rename(columns={"value": "balanced_accuracy", "low": "balanced_accuracy_low", "high": "balanced_accuracy_high"})

# %% mystnb={"image": {"alt": "Balanced accuracy against millions of multiply-adds of the trained models, with intervals; the six mechanisms spread over a third of their cost in no order of score, the control is the cheapest and the lowest."}}
joined["mmacs"] = joined.macs / 1e6
mb.plots.pareto(joined, x="mmacs", y="balanced_accuracy");

# %% [markdown]
# Here too the mechanisms differ in cost: windows need {value}`11_cost:trained.window.macs|.3g M`, softmax attention
# {value}`11_cost:trained.softmax.macs|.3g M`, Performer {value}`11_cost:trained.performer.macs|.3g M`. With so few tokens
# the extra products of Linformer and Performer cost more than they save. Where intervals overlap, the order from top to
# bottom is no ranking.
#
# ## What we may conclude
#
# - At 224 px no mechanism that keeps its projections can save more than the share of mixing; the rest is projections, MLPs
#   and merging.
# - A count without its convention, image size and number of classes is no number.
# - The study's parameters and multiply-adds come out again for the six transformers, to one unit of the last printed digit,
#   at its own settings: see chapter 02.
# - Nothing here says what is *fast*. A count leaves out memory traffic, the start of each operation, and how well a
#   device runs it.
#
# For research and teaching, not for clinical use.
#
# ## Exercises
#
# ````{exercise} A handle for the counter
# :label: ex-cost-handle
#
# Give a counter what it lacks. Write `handle(q_shape, k_shape, v_shape)` that returns the FLOPs (not MACs) of attention
# for shapes $(B, h, N, d)$, $(B, h, M, d)$ and $(B, h, M, e)$. Softmax and scaling count nothing.
# ````

# %% tags=["skip-execution"]
def handle(q_shape, k_shape, v_shape):
    ...

check("cost.handle", handle)

# %% [markdown]
# ````{solution} ex-cost-handle
# :class: dropdown
#
# Two products for each image and head: $N \times d$ by $d \times M$, then $N \times M$ by $M \times e$.
#
# ```python
# def handle(q_shape, k_shape, v_shape):
#     B, h, N, d = q_shape
#     M, e = k_shape[2], v_shape[3]
#     return 2 * B * h * N * M * (d + e)
#
# check("cost.handle", handle)
# ```
# ````
#
# ````{exercise} The most that can be saved
# :label: ex-cost-share
#
# A block on $N$ tokens of $C$ channels spends $2N^2C$ on softmax mixing, $4NC^2$ on projections and $8NC^2$ on its MLP.
# Write `share(N, C)`: the largest share of the block that a cheaper mechanism could save.
# ````

# %% tags=["skip-execution"]
def share(N, C):
    ...

check("cost.share", share)

# %% [markdown]
# ````{solution} ex-cost-share
# :class: dropdown
#
# $2N^2C / (2N^2C + 12NC^2) = N / (N + 6C)$. With 1,024 tokens of 96 channels that is 0.64, in the first stage. With
# 64 tokens of 384 channels it is 0.03, in the third, where half of the blocks are.
#
# ```python
# def share(N, C):
#     return N / (N + 6 * C)
#
# check("cost.share", share)
# ```
# ````
#
# **An open question.** Both conventions leave out softmax, GELU and additions. On which device would you expect them to
# matter most, and how would you measure it?
#
# ## Quiz
#
# ```{dropdown} 1. A table heads its column "FLOPs" and counts each multiply-add once. What is wrong?
# It counted MACs. In FLOPs every figure is twice as large.
# ```
#
# ```{dropdown} 2. Two tables count the same model differently by a few per cent. Must one be wrong?
# No. One may price norms and pooling, the other products alone.
# ```
#
# ```{dropdown} 3. Does a classifier of 1,000 classes in place of 10 change the multiply-adds noticeably?
# Hardly: 768 x 990 products more. But it changes the parameters visibly, by 769 x 990, the biases included.
# ```
#
# ```{dropdown} 4. Why can a mechanism without any mixing not be free?
# Projections, MLPs, the stem and the merging stay.
# ```
#
# **Three misconceptions**
#
# - *"Linear attention makes the model linear, so it is much cheaper."* Only mixing becomes linear; the rest always was.
# - *"The counter is part of the framework, so it is right."* It is right about the operators it knows.
# - *"FLOPS and FLOPs are the same word."* One is a speed, operations per second; the other is a count.
#
# ## Further reading
#
# - {cite}`dehghani2022`: why parameters, FLOPs and speed tell different stories.
# - {cite}`fair2022`: the same pyramid, the same columns.
# - {cite}`schwartz2020`: why counts belong in papers at all.
