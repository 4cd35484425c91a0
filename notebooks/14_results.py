# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Results
#
# ```{admonition} In this chapter
# :class: note
# **You will learn** what the measurements of this book allow to say, what they do not, and how verdicts can be computed
# instead of written.
# **You need** chapters 10 to 13, or the wish to read the end first.
# **Time**: 15 minutes.
# ```

# %% tags=["parameters"]
profile = "laptop"
device = "auto"
seed = 0

# %%
import medbench as mb
from medbench.book import start, verdicts

book = start("14_results", globals())
found = verdicts.evidence(book.device)

# %% [markdown]
# ## The question
#
# Which mechanism should a hospital put on its edge device? So asked the study {cite}`study2022` with which this book began.
#
# ```{admonition} Predict before you run
# :class: tip
# You have seen the parts. Write down your own ranking of the six mechanisms now, and beside each place how sure you are.
# ```
#
# ## Everything on one page
#
# The rows are in the order of the chapters, not ranked. Each value has its 95 % interval. Scores, MMAC and ms are those of the
# models that this profile trains; the last two columns are those of the large preset. In the first `resnet50` stands for the
# small ResNet of chapter 09, in the last two for ResNet-50 itself. Times are for one image.

# %%
verdicts.summary(found)

# %% [markdown]
# The large models were timed, but they are not ranked by their scores. That is a weakness, stated here and not hidden: on a
# device without a GPU they cannot be trained until their validation score no longer rises. What one short run of each
# reached is on [a page of its own](../full-size.md).
#
# ## Is there a winner?

# %%
winner = verdicts.leader(found)
mb.results.record("verdict", winner, to=book.results)
print(winner["text"])

# %% [markdown]
# This sentence is computed from the comparisons of chapter 10. On your device it may read otherwise. A lead in one run is
# a fact about that run. What eight seeds say, against softmax attention, in the words of chapter 10:

# %%
seeds_said = verdicts.over_seeds(found)
mb.results.record("verdict", seeds_said, to=book.results)
print("\n".join(row["text"] for row in seeds_said))

# %% [markdown]
# All are at the recipe's learning rate, the same for all models. Chapter 10 also gives each model its own. That leaves the
# mechanisms where they were on the phantom, and moves the ResNet by more than most of them differ. And the first verdict of a
# family needs all eight differences of one sign, however large their mean: chapter 10 tells why.
#
# ## Each mechanism in one sentence

# %%
rows = verdicts.sentences(found)
mb.results.record("verdict", rows, to=book.results)
print("\n\n".join(row["text"] for row in rows))

# %% [markdown]
# The words are chosen by rules. *Higher*, *lower* and *could not be told from* "in this run": by whether the paired interval
# holds zero; "over eight seeds" by the planned comparisons, with *equivalent* for within two points. *Faster*, *slower*,
# *as fast* and *could not be told apart* by the interval of the time ratio and the noise floor.
#
# ## Score against time
#
# Both axes are of the models that were trained. If one point stood above and to the left of all others, by more than its
# bars, it would be the answer.

# %% mystnb={"image": {"alt": "Balanced accuracy against median latency of one image for all trained models with intervals in both directions; a line joins those that no other beats in both."}}
mb.results.record("verdict", verdicts.on_the_line(found), to=book.results)
mb.plots.pareto(verdicts.pareto_table(found), x="latency_ms", y="balanced_accuracy");

# %% [markdown]
# {sentence}`14_results:verdict.choice`
#
# Several points on the line mean that the choice depends on what you need more. Bars that overlap mean that the order of
# these points is not settled. And the line is one of this size and this runtime: chapter 12 shows other orders for others.
#
# ## What became of the study's claims

# %%
became = verdicts.claims(found)
mb.results.record("claim", became, to=book.results)
verdicts.claims_page(became).style.hide(axis="index")

# %% [markdown]
# The study had its idea right: change only the attention. What it lacked were the words *not shown*.
#
# And on real MRI? {sentence}`10_training:real.conclusion` Chapter 10 has the table and what it cannot say.
#
# ## What we may conclude
#
# - On the phantom, at this size: {sentence}`10_training:gain.all.conclusion` A difference "in this run" of a few points may
#   be one of runs and not of mechanisms. {sentence}`14_results:verdict.over_seeds.phantom`
# - On real MRI, three kinds of tumour: {sentence}`14_results:verdict.over_seeds.brain-tumor-mri`
# - In arithmetic: at 224 px no mechanism that keeps its projections can save more than the share of mixing. At 448 px and
#   beyond it can save a lot.
# - In time: on each device, with its runtime, as the sentences above say. {sentence}`14_results:verdict.choice`
# - For a device in a hospital: measure on that device, with that runtime, with your images. Chapter 12 is made for it.
#
# ```{admonition} What we may not conclude
# :class: warning
# These images are drawings with known answers; they rank how models learn this drawing and say nothing about patients.
#
# Measured with the preset `small`, at 112 px and with a convolutional stem, where mixing is
# {value}`11_cost:trained.softmax.mixing_share|.0%` of softmax's arithmetic (in the large preset at 224 px
# {value}`11_cost:cost.softmax.mixing_share|.0%`); do not carry the ranking to the large preset or to 448 px.
#
# *Undecided* does not mean equal: in single runs a difference under
# {value}`10_training:compare.all.detectable_difference|.1f` points would be missed more than once in five times.
#
# For research and teaching, not for clinical use.
# ```
#
# ## What would change our mind
#
# - Learning rates chosen over many seeds, and more than three of them, so that a claim is not about one draw of the tuning.
# - The large preset, trained until its validation score no longer rises, on real images with a split by patient.
# - Other devices and runtimes. Yours is welcome: see the appendix on devices.
#
# ## Quiz
#
# ```{dropdown} 1. "No winner" - is that a failure of the comparison?
# No. It says that the differences are smaller than what these images and this one run can show.
# ```
#
# ```{dropdown} 2. Which result of this book does not depend on the machine?
# The counts: parameters and multiply-adds. They are exact.
# ```
#
# ```{dropdown} 3. You need a model for 448 px. Which figure of the book do you look at first?
# Chapter 12, the times at larger images; then time your candidates on your device. Multiply-adds alone do not tell.
# ```
#
# ```{dropdown} 4. What is compared with softmax when a sentence says "scored higher"?
# "In this run": one run with one run, on the same test images. "Over eight seeds": the means of eight runs each, paired.
# ```
#
# ## Further reading
#
# - {cite}`fair2022`: the same question on ImageNet, with another order.
# - {cite}`bouthillier2021`: how much of a benchmark is luck.
# - {cite}`maierhein2024`: which metric for which medical question.
