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
# # Training fairly
#
# ```{admonition} In this chapter
# :class: note
# **You will learn** to compare models so that only the thing you ask about differs, to read a score with its interval,
# to say what one run and what eight seeds can show, and what else can change the answer: the data, their number, the size.
# **You need** chapter 01 for the images, chapter 02 for the pyramid and the control `none`, chapter 09 for the ResNet.
# **Time**: an hour to read and do. One run of each small model is trained here; the bar in the terminal says how long that
# takes. What takes hours comes from records, and each such place names the command that made them.
# ```

# %% tags=["parameters"]
profile = "laptop"
device = "auto"
seed = 0

# %%
import pandas as pd

import medbench as mb
from medbench.book import benchmark, start
from medbench.book.exercises import check
from medbench.book.seeds import over_seeds

book = start("10_training", globals())

# %% [markdown]
# ## The claim, and what would make it true
#
# The study {cite}`study2022` says two things of its bar chart of top-1 accuracy: that transformers outperform the CNN,
# and that the efficient mechanisms do as well as softmax attention or better. Its own bars run from
# {value}`study-2022/10_training:accuracy.window.top1` to {value}`study-2022/10_training:accuracy.fastformer.top1`,
# with one run each and no interval.
#
# What would make such a claim true?
#
# 1. Only the mechanism differs: the same images in the same order, the same skeleton with the same first weights, the
#    same recipe, the same number of steps.
# 2. The score cannot be had without looking. The answer *normal* alone is right for
#    {value}`study-2022/14_results:derived.majority_share|.1%` of that data. We use scores in which each class counts the same.
# 3. The difference is larger than what another draw of test images, or another seed, would give.
#
# ```{admonition} Predict before you run
# :class: tip
# Eight models follow: six mechanisms, a small ResNet, and `none`, which never lets tokens look at each other.
# Which two will be furthest apart in balanced accuracy? And where will `none` stand?
# ```
#
# The tables call the small ResNet `resnet50`, because it is made of the same blocks. It is not ResNet-50. It also breaks
# condition 1: a ResNet and a pyramid of attention differ in everything (chapter 09). So what is said of it here is about two
# families of models, and not about attention.
#
# ## The data
#
# The models see the phantom of chapter 01. In the study's data most images are normal. Our training images are drawn by the
# square root of those frequencies, so that every class is seen often enough in a short training.

# %%
names = mb.config.ALL_MODELS
seeds = [book.seed + s for s in book.profile.seeds]
experiments = [mb.Experiment.preset(book.profile.preset, name, seed=s, profile=book.profile,
                                    device=str(book.device))
               for name in names for s in seeds]
data = mb.load_data(experiments[0].data)
called = [mb.phantom.CLASS_NAMES[key] for key in data.classes]
splits = (data.train, data.val, data.test)
pd.DataFrame({split.name: list(split.class_counts.values()) for split in splits}, index=called)

# %% [markdown]
# The test set has the same number of images in each class. Nothing is chosen on it, and each model sees it once, below.
#
# ## The recipe
#
# One recipe serves all. A mechanism that needs another learning rate is at a disadvantage here: that is the price of
# comparing "the same recipe", and a reason to read small differences with care. Further down each model gets three tries.

# %%
benchmark.recipe_page(experiments[0].training)

# %% [markdown]
# The optimiser is AdamW, a gradient descent that gives each weight its own step size. Its rate rises linearly at first
# (warm-up) and then falls along a cosine, almost to zero. What happens to an image is drawn from the seed, the epoch and the
# image's number alone: every model sees the same pictures.
#
# ## How a model answers
#
# The models were trained where some classes are rarer than others. A model that has learned these frequencies, the
# {term}`prior` $\pi$, answers rare classes rarely. We want each class to count the same. So from the {term}`logits <logit>` $z$
# the logarithm of the prior is taken out, and the answer is $\arg\max_c\,(z_c - \log \pi_c)$. Every model decides by this
# one line.
#
# ## The training

# %%
trained = benchmark.train_all(experiments, data)
benchmark.run_table(trained)

# %% [markdown]
# The images seen are the same for all: that is the budget that matters. The seconds are those of the machine that trained.
# The best epoch is the one that did best on the validation images, and its weights are kept.
#
# ```{note}
# A finished run is kept and loaded the next time, so this cell is quick when it is run again. On a CPU each model trains on
# one thread, as many side by side as there are cores. For small models that is quicker than all cores for one.
# ```
#
# How did they learn? We draw the balanced accuracy on the validation images after each pass.

# %% mystnb={"image": {"alt": "Balanced accuracy on validation images against images seen, one line a model, the control without mixing drawn thicker."}}
curves = pd.concat([pd.DataFrame(t.run.history).assign(model=t.name)
                    for t in trained if t.experiment.training.seed == seeds[0]])
mb.plots.curves(curves, "samples_seen", "val_balanced_accuracy", highlight="none");

# %% [markdown]
# Look at the right end. Lines that still rise have not come to rest. A line that flattens may only follow its step size,
# which falls to almost zero by design. More images would help, and the order might change with them. So what follows is an
# order after {value}`10_training:phantom.softmax.samples_seen|,.0f` images, early in learning.
#
# ## The scores
#
# Now the test set. Beside the models stand two shortcuts that cannot see fine anatomy; any model has to beat them. Always
# giving the same answer would score a tenth in balanced accuracy. And the intervals? We draw the test images again with
# replacement, many times, and score each draw; the middle {defined}`95 %` of these scores is the interval (a
# {term}`bootstrap`). It says how far the score would move with other test images of the same kind, and nothing about
# another seed.

# %%
scores = {t.name: [] for t in trained}
for t in trained:
    found = mb.evaluate(t.logits, data.test, bootstrap=book.profile.bootstrap, seed=book.seed)
    mb.results.record(t.experiment, found, t.run, to=book.results, seed=t.experiment.training.seed)
    scores[t.name].append(found)
shortcuts = mb.baselines.shortcut_scores(data, bootstrap=book.profile.bootstrap)
for name, score in shortcuts.items():
    mb.results.record(f"phantom.{name}", score, to=book.results, data="phantom")
benchmark.score_table(scores | {name: [score] for name, score in shortcuts.items()},
                      ("balanced_accuracy", "macro_auroc", "top1"))

# %% [markdown]
# Balanced accuracy and {term}`AUROC` count each class the same. Top-1 depends on how frequent the classes are, so here it is
# weighted back to the frequencies of the study's data. Most of those images are normal, which lifts top-1 by itself; that is
# why it does not come first. The records hold more scores, among them {term}`AUPRC` and {term}`MCC`.
#
# The two shortcuts are logistic regressions, one on the picture shrunk to a thumbnail, one on 42 statistics of the grey
# levels. Chapter 01 shows how the images were drawn so that these shortcuts score low. A model that scores higher must use
# something else.
#
# Is this all that can be seen in these pictures? No. A ResNet-18, a common and larger network, trained by the same recipe
# on {value}`edition/10_ceiling:phantom.resnet18.samples_seen|,.0f` images (the same ones, each seen more often), reaches
# {value}`edition/10_ceiling:phantom.resnet18.balanced_accuracy|±`. It is larger and was trained longer, and one run cannot
# tell which of the two helped: the models above are compared at a budget that a laptop can pay.
#
# The same as a picture, with the better shortcut as a line.

# %% mystnb={"image": {"alt": "Balanced accuracy of the eight models with 95 percent intervals, a dashed line for the better shortcut."}}
table = mb.results.load(book.results.parents[1])
table = table[(table.chapter == "10_training") & (table.device == book.results.parent.name)
              & (table.data == "phantom")]
shown = table[(table.quantity == "balanced_accuracy") & table.model.notna()]
best = max(s.balanced_accuracy.value for s in shortcuts.values())
mb.plots.scores(shown, lines={"better shortcut": best});

# %% [markdown]
# ## Which findings are confused?
#
# A single number hides which classes are hard. We look at the softmax model, row by row.

# %% mystnb={"image": {"alt": "Confusion matrix of the softmax model over the ten classes, shares of each true class; the diagonal is what was found."}}
mb.plots.confusion(scores["softmax"][0].confusion, called);

# %% [markdown]
# Are findings that share a sign, a bright spot, a dark hole, a push, taken for each other? And where the answer is *normal*, a
# lesion was missed. The five largest cells off the diagonal:

# %%
benchmark.confused(scores["softmax"][0].confusion, called)

# %% [markdown]
# Do models with the same score find the same things? The **sensitivity** of a class is the share of its images that is
# found, its **specificity** the share of all other images that is not taken for it. The others are here an equal mix of nine
# classes; a clinic's mix would give another specificity. The intervals are Wilson's, which hold for few images too.

# %%
benchmark.class_page({name: scores[name][0] for name in ("softmax", "resnet50", "none")}, called)

# %%
one_run = {name: found[0] for name, found in scores.items()}
for pair in (("resnet50", "softmax"), ("softmax", "none")):
    print(benchmark.where_they_differ(one_run, *pair, called))

# %% [markdown]
# Each sentence names the largest difference in either direction, and only where the intervals of both models are apart. They
# were picked because they are large, so take them as hints. The second asks where it helps to look at other tokens.
#
# ## Are the differences real?
#
# All models were scored on the same images. So we may compare them pairwise: draw the test images again, many times, and
# each time take the difference of both models *on the same draw*. That is usually sharper than comparing two intervals, since
# what makes a draw hard is hard for both.

# %% mystnb={"image": {"alt": "Difference of each model to softmax in percentage points of balanced accuracy with 95 percent intervals and the verdicts better, worse or undecided."}}
comparisons = benchmark.compare_all(trained, data, bootstrap=book.profile.bootstrap)
benchmark.record_all("compare", comparisons, book.results)
least = {"quantity": "detectable_difference", "value": benchmark.detectable(comparisons),
         "unit": "percentage point", "n": len(data.test)}
mb.results.record("compare.all", least, to=book.results)
mb.plots.forest(benchmark.differences(comparisons),
                xlabel="balanced accuracy minus that of softmax (percentage points)");

# %% [markdown]
# *Better* and *worse*: the interval leaves zero out. *Undecided*: it does not, and that does not make two models equal. With
# {value}`10_training:compare.all.detectable_difference|n` test images, a difference of
# {value}`10_training:compare.all.detectable_difference|.1f` would be found four times in five; smaller ones would often be
# missed.
#
# Softmax is the model that the study compared with. The same for three more questions. Is a mechanism better than the
# small ResNet, as the study says of transformers? Is it better than no mixing at all? And which model has the highest score,
# and is its lead real?

# %%
leader = max(scores, key=lambda name: scores[name][0].balanced_accuracy.value)
others = {"cnn": "resnet50", "gain": "none", "behind": leader}
draws = book.profile.bootstrap
beside = {kind: benchmark.compare_all(trained, data, reference=name, bootstrap=draws)
          for kind, name in others.items()}
for kind in ("cnn", "gain"):
    beside[kind] = [c for c in beside[kind] if c.first in mb.config.MECHANISMS]
for kind, found in beside.items():
    benchmark.record_all(kind, found, book.results)
benchmark.differences_page({f"minus {name}": beside[kind] for kind, name in others.items()})

# %%
lead = benchmark.lead(beside["behind"])
mb.results.record("lead.all", lead, to=book.results, data="phantom")
print(lead["text"])

# %% [markdown]
# More than twenty intervals are read here, each at {defined}`5 %`: among equal models one of them may still miss zero by
# chance. Only the last sentence is corrected for that. So it may say *cannot be told* of a model that a column calls
# *worse*. It has a weakness of its own: the leader was chosen *because* it scored high on these images, which makes its
# lead look larger than it is.
#
# And there is a second noise, which none of these intervals covers: another seed gives another model. So read "better" and
# "worse" as "this run", never as "this mechanism". Eight seeds follow below.
#
# ## What is mixing worth?
#
# The control `none` has the same skeleton but no queries and keys, so it has fewer parameters, too. Its tokens never look at each
# other inside a stage. It sees a wider part of the image only where the pyramid merges tokens.

# %% mystnb={"image": {"alt": "Gain of each mechanism over the control without mixing in percentage points of balanced accuracy, with 95 percent intervals."}}
worth = benchmark.worth(beside["gain"])
mb.results.record("gain.all", worth, to=book.results, data="phantom")
mb.plots.forest(benchmark.differences(beside["gain"]),
                xlabel="balanced accuracy minus that of none (percentage points)");

# %% [markdown]
# Softmax attention differs from no mixing at all by {value}`10_training:gain.softmax.balanced_accuracy_difference|±`. A
# mechanism is worth this gain and not its whole score: the rest belongs to the stem, the MLPs and the merging.
#
# ## One line that moves points
#
# What if we forget the line that takes the prior out, and answer the largest logit?

# %%
uniform = [1 / len(data.classes)] * len(data.classes)
forgot = {t.name: mb.evaluate(t.logits, data.test, prior=uniform, bootstrap=0) for t in trained}
pd.DataFrame({name: {"with the prior taken out": one_run[name].balanced_accuracy.value,
                     "argmax of the logits": forgot[name].balanced_accuracy.value}
              for name in forgot}).T.round(3)

# %% [markdown]
# The weights are the same in both columns. And what if only *one* model forgets it? Predict: which verdicts change when
# softmax alone answers its largest logit? Then turn the knob yourself, with another model in `forgets`.

# %%
forgets = "softmax"
unfair = benchmark.compare_all(trained, data, priors={forgets: uniform}, bootstrap=draws)
benchmark.differences_page({"all take it out": comparisons, f"all but {forgets}": unfair})

# %% [markdown]
# One line of code outside the models, and a table of verdicts reads differently. A comparison in which one model gets this
# line and another does not is worth nothing, whatever its intervals say.
#
# ## Another seed, another order?
#
# A seed draws the first weights, the order of the images, and their flips and shifts. The images themselves stay the same.
# Nothing about a mechanism is in a seed, so a claim about mechanisms has to hold for others too. Eight seeds of eight models
# take two cores many hours. So they are trained by a command of their own, `python -m medbench campaign small-phantom`,
# and what follows comes from its records.
#
# ```{admonition} Predict before you look
# :class: tip
# How many models will keep their place when we average eight seeds? Which differences to softmax will remain?
# ```

# %%
on_phantom = over_seeds("small-phantom", book.device)
on_phantom.page()

# %% [markdown]
# Each score is the mean over seeds, with an interval that draws seeds and test images together; *seeds* has the lowest and
# the highest. Where seeds are missing the cell says how many are there: then it is the mean of the seeds that all models
# have, and there is no interval yet.
#
# With *its own rate* each model gets one learning rate of three: half, once or twice the recipe's, whichever had the highest
# AUROC on the validation images in one run, with the first seed. Every model has the same three tries. "The same recipe" asks
# how a model does without tuning; "its own rate" asks what a little tuning brings. It is little: one run on few images
# chooses, another first seed might choose another rate, and no interval here includes that. *x 1*: it kept the recipe's rate,
# and both columns hold the same runs.
#
# When do we call a difference real? Five other mechanisms and the ResNet against softmax: six questions that were fixed before
# the training ({term}`planned comparison`). A **p-value** says how often a difference this large would come about if the two
# models were equally good. Two noises can bring it about, so two tests have to agree:
#
# - The {term}`sign-flip test` is about seeds. If the two were equal, each of the eight paired differences could as well have had
#   the other sign. There are 256 ways to choose the signs; p is the share of them whose sum is at least as far from zero as ours.
# - The *bootstrap* draws seeds and test images again, many times. Its p is twice the share of draws in which the mean
#   difference falls on the other side of zero.
#
# The larger p of the two counts, and Holm's correction makes it stricter, because six questions are asked.

# %% mystnb={"image": {"alt": "Mean difference of each model to softmax over eight seeds with 95 percent intervals, a grey zone of two points on either side of zero, and the verdicts; or the words not run."}}
on_phantom.forest();

# %%
print("\n".join(on_phantom.limits()))
on_phantom.verdicts()

# %% [markdown]
# Four words, computed, with fixed meanings.
#
# - *Better* and *worse*: the corrected p lies below {defined}`5 %`.
# - *Equivalent*: it does not, and the {defined}`90 %` interval lies in the grey zone, within two points, which amounts to two
#   one-sided tests at {defined}`5 %`. That is a result, not a failure to find one. To agree on a few images is not enough:
#   this interval is at least as wide as if the models differed in one image of each class.
# - *Undecided*: neither.
#
# The bars are 95 % intervals of one comparison alone. So a bar may miss zero and its verdict be *undecided*: the correction is
# stricter. And a bar may reach out of the grey zone and be *equivalent*.
#
# Why eight seeds? The smallest possible p is 2 divided by 2 to the number of seeds. With five it is 2/32, above
# {defined}`5 %` even for one question. With seven it is 2/128, too large where six questions are asked. With eight it is
# 2/256, and six times that is just below {defined}`5 %`. So where six questions are undecided, the first verdict needs all
# eight differences of one sign.
#
# What is corrected, and what is not: each column, of each data set, is a family of six questions of its own. *Equivalent* is
# not corrected: each is at {defined}`5 %` alone. Softmax against `none`, in the last row, is tested separately and without
# correction. And the rate was chosen with the first of the eight seeds.
#
# The differences that would be found pay for seeds and for six questions, and gain from averaging eight runs; for single runs
# it was {value}`10_training:compare.all.detectable_difference|.1f` on average. They are not the same for all: a model whose
# seeds differ more from those of softmax needs a larger one. Look at it before you read an *undecided*.
#
# One model changes its place between the columns. Which rates were tried, how was one chosen, and what did it bring?

# %%
on_phantom.tries()

# %% [markdown]
# The first three columns are AUROC on the validation images, one run each, with the first seed. *Over seeds* is the standard
# deviation of that score from seed to seed, at one and the same rate: two rates that differ by no more are told apart by chance.
# *Brought* is the change in balanced accuracy on the test set, over all seeds.
#
# Half the recipe's rate is never better here: for XCA it is clearly worse, for the other attention models it lies within two
# of these standard deviations of the recipe's own. Twice the rate is clearly too much for nearly all of them, and clearly
# better for the ResNet. On the test set its balanced accuracy goes from
# {value}`edition/10_seeds_phantom:phantom.same.resnet50.mean.balanced_accuracy|±` to
# {value}`edition/10_seeds_phantom:phantom.tuned.resnet50.mean.balanced_accuracy|±`. That one knob decides where the ResNet
# stands: not to be told from softmax attention in the left column, ahead of all in the right one. "As good as a CNN" would have
# been a sentence about a learning rate. And its best rate is the largest that was tried, so a larger one might be better still.
#
# All six mechanisms kept the recipe's rate, so the differences *between them* are the same in both columns. It is one draw:
# for most of them the runner-up lay within the noise, and another first seed might have chosen it.
#
# ## Real MRI: three tumour classes
#
# Does the code work on real images? `brain-tumor-mri` {cite}`cheng2017` has T1-weighted slices after contrast of three
# kinds of tumour, from 233 patients of two hospitals, under CC BY 4.0. The same eight models are trained on it, at
# the same size, on as many images as above, so that each image is seen many times. Learning rate, batches and shifts
# differ from the recipe above, for all models alike; rate and shifts were chosen on validation images. The tables are rendered
# from records: the images themselves are not part of the book. First what has to be beaten, and one run of each model.

# %%
real = benchmark.real_records(book.device)
alike = benchmark.beside_phantom(real, scores)
mb.results.record("real", alike, to=book.results, data="brain-tumor-mri")
benchmark.recorded_scores(real)

# %% [markdown]
# With three classes, chance is a third in balanced accuracy. Top-1 is not reweighted here. The lines to beat learn no
# features. The statistics do not know where a pixel lies; the other two compare pixels place by place. The nearest neighbour
# takes the training image that is closest and answers its label; it reaches
# {value}`edition/10_real:brain-tumor-mri.nearest_neighbour.balanced_accuracy|±`, and in top-1
# {value}`edition/10_real:brain-tumor-mri.nearest_neighbour.top1|±`.
#
# Does the order of the phantom return? {sentence}`10_training:real.conclusion`
#
# And in eight seeds of each, at the recipe's rate and at its own (`python -m medbench campaign small-mri`)? They are never
# pooled with those of the phantom.

# %%
on_mri = over_seeds("small-mri", book.device)
on_mri.page()

# %% mystnb={"image": {"alt": "Real MRI: mean difference of each model to softmax over eight seeds with 95 percent intervals, a grey zone of two points on either side of zero, and the verdicts; or how many seeds are there."}}
on_mri.forest();

# %%
print("\n".join(on_mri.limits()))
on_mri.verdicts()

# %% [markdown]
# The test set has {value}`edition/10_real:brain-tumor-mri.softmax.balanced_accuracy|n` images, and no number of seeds makes them
# more. To be *equivalent* within two points is hard to show with so few.
#
# The two columns do not agree. At the recipe's rate all is undecided; at its own, most models are *better* than softmax. Did
# they become better? Here is how each rate was chosen, and what it brought on the test set.

# %%
on_mri.tries()

# %% [markdown]
# Compare the first three columns with *over seeds*. For softmax the rates differ little more than seeds do. With the first
# seed twice the rate did best on validation; over all eight seeds, which nobody asked, it did worse there than the recipe's.
# So chance chose, and it chose badly: over eight seeds the balanced accuracy on the test set went from
# {value}`edition/10_seeds_mri:brain-tumor-mri.same.softmax.mean.balanced_accuracy|±` to
# {value}`edition/10_seeds_mri:brain-tumor-mri.tuned.softmax.mean.balanced_accuracy|±`. Most others moved far less. The model that
# all are compared with fell, and every difference to it rose.
#
# So *better* in the right column is true of what was compared: eight runs each, at these two rates. It is not a finding about
# mechanisms. No test on this page can see that, for each takes the rates as given: a rate was drawn once, and all eight
# differences inherit it. A claim about mechanisms should hold in both columns; chapter 14 takes the left one. And wherever you
# read that a model beats a tuned baseline, ask how often the tuning was repeated.
#
# ```{admonition} What these numbers can and cannot say
# :class: warning
# Three tumour classes, no normals, contrast T1, patient ids lost: block split as proxy; location alone helps with
# pituitary tumours. The split takes contiguous blocks of the original numbering with a guard between them, in the hope
# that a patient's slices lie together. So a patient may still stand on both sides, and the scores may be too high.
#
# A patient of this data set has 13 slices on average, and they are alike: the test set is some forty patients rather than
# hundreds of images. So the bootstrap draws runs of 13 slices of one class in the order of their numbers, in place of the
# patients whom nobody can name. That is a guess at who belongs together. And a dozen runs a class are few, so what they spread is stretched as
# Student's distribution has it. An earlier version of this page did not stretch it; in the right column, *linformer* was
# then *better* too. These numbers say that the code learns from real images. They do not say which mechanism finds tumours.
# ```
#
# ## Beside published scores
#
# Do our models reach what others report? *BreastMNIST* {cite}`medmnist2023` has 780 ultrasound images, malignant or not,
# with an official split and published scores. The images have 28 x 28 pixels; ours are enlarged to the size of the models.
# *ACC* is top-1, *AUC* is {term}`AUROC`.

# %%
breast = benchmark.real_records(book.device, benchmark.PUBLISHED)
benchmark.beside_published(breast)

# %% [markdown]
# The last row needs no image at all. The published figures have no intervals; ours show how wide they would be, since the test
# set has {value}`edition/10_medmnist:breastmnist.softmax.top1|n` images. So few cannot separate most of these rows. What can be
# said: hardly any of our models comes into the published range, and most have a lower AUC than the nearest neighbour, which
# learns nothing. Ours start from random weights and see some hundred small images; which of the many differences to the
# published training matters we did not test. And chapter 01 found that some pairs of images stand on both sides of this
# split, nearly or exactly alike. That helps any method that memorises pictures, above all the nearest neighbour.
#
# To train one yourself, with the folder of your data sets in `MEDBENCH_DATA`:
#
# ```bash
# python -m medbench train --model fastformer --preset small --data $MEDBENCH_DATA/brain-tumor-mri/manifest.csv
# ```
#
# ## What else could change the answer?
#
# Three more things, each with one figure or table: how many images there are, what is done about rare classes, and which
# quality is asked for. A fourth, how large the models are, has [a page of its own](../full-size.md).
#
# ### Who is hungry for data?
#
# How many *different* images does each model need? Seven models, without the control, learn from fewer and fewer. All take as
# many steps as above, so fewer images are shown more often: 18,000 of them three times each, 500 more than a hundred times.
# Each set is a part of the next larger one, so that only the number differs (`python -m medbench campaign curves`).
#
# ```{admonition} Predict before you look
# :class: tip
# Whose score will fall deepest with few images? And what is better for as many steps: 8,000 images seven times each, or
# 18,000 three times each?
# ```

# %% mystnb={"image": {"alt": "Balanced accuracy against the number of different training images, one line a model with the interval of its test images, one seed each; or the words not run."}}
data_curves = over_seeds("curves", book.device)
data_curves.curve();

# %%
data_curves.sizes()

# %% [markdown]
# With few images all fall, and in another order than on the right. *Linformer* falls deepest, as it stands last on the right,
# too. The surprise is the ResNet: with 500 images it is ahead of all, at
# {value}`edition/10_curves:phantom.n500.resnet50.balanced_accuracy|±` against
# {value}`edition/10_curves:phantom.n500.softmax.balanced_accuracy|±` of softmax attention. Lines that cross mean that the answer to
# "which is best" depends on how many images you have. Networks of convolutions are often said to need fewer images, since they
# need not learn that a pattern means the same in another place. This fits, but only just: with 1,000 images the ResNet is one
# among the others again ({value}`edition/10_curves:phantom.n1000.resnet50.balanced_accuracy|±` against
# {value}`edition/10_curves:phantom.n1000.softmax.balanced_accuracy|±`). One seed at one size proves nothing.
#
# An earlier version of this figure stopped the small sets when each image had been shown 32 times, and so after fewer
# steps. There the ResNet stood near the bottom at 500 images, and we would have called it hungry for data. It was short of
# steps.
#
# At the right end nobody is hungry. We had expected lines that still rise. But from 8,000 images to 18,000 no line does; all
# seven fall, as the last column says. For as many steps, new images bring no more than another look at old ones; if anything,
# less. The seven lines share their images and their seed, so they are not seven witnesses, and the columns *seeds* above show
# how far one seed alone can move a score. (Whole epochs also give 8,000 images a few steps more.) So it is not a lack of
# images that holds the scores of this chapter down. More steps may lift them. Another rate does for the ResNet, and another
# way to draw the images may (below). Read shapes, not places, and do not ask which model would profit from more images before
# it has had enough steps.
#
# ### What about rare classes?
#
# Above, rare classes were already made less rare by the square root. The models then train on them as they are, and decide as
# if all were as frequent. There are other ways: weight the loss, add the log prior to the logits in training
# {cite}`menon2021`, look harder at what is still wrong (the focal loss {cite}`lin2017focal`), or draw rare classes more
# often. The choice has to be the same for all models, or it decides the comparison. Does it matter? Two models, two seeds,
# five ways, `python -m medbench campaign imbalance`. Of each model the table has the balanced accuracy, and the calibration
# error (below) as it is and with a temperature. A method may gain the one and lose the other.

# %%
over_seeds("imbalance", book.device).choices()

# %% [markdown]
# The scores are those of two seeds, so there is no interval: take for noise what two seeds of one way differ by. *seeds*
# says how many all models of a row have.
#
# Does it matter? More than most mechanisms do. For both models, both runs that *draw rare classes more often* are better than
# both runs of the plain cross-entropy; on average softmax goes from
# {value}`edition/10_imbalance:phantom.cross_entropy.softmax.mean.balanced_accuracy|.3f` to
# {value}`edition/10_imbalance:phantom.balanced_sampling.softmax.mean.balanced_accuracy|.3f`. And both runs that *weight the
# loss* are worse, which we did not expect: both want rare classes to count more, one by showing them, the other by multiplying
# the few that come by. Perhaps the steps become too uneven: a rare image then moves the weights much further than a
# frequent one. A lower learning rate would tell; we did not try it. The focal loss costs accuracy too, and its calibration error
# is by far the largest; one temperature mends little of it. Logit adjustment changes nothing that two seeds could show.
#
# So the recipe of this chapter is not the best one for rare classes. It was fixed before these runs, and it is the same for
# all models; that keeps the comparison fair and the scores lower than they could be.
#
# ### Do the probabilities mean what they say?
#
# A model that says "{defined}`90 %`" should be right in nine of ten such cases. The {term}`calibration error` is the mean
# gap between what is said and what is true, class by class. One number, a {term}`temperature` found on the validation
# images, divides the evidence, which is the logits less the log prior (after {cite}`guo2017`). Above 1 it says that a model was too sure of
# itself, below 1 that it was not sure enough. The decisions behind balanced accuracy stay the same; those behind top-1 may
# change.
#
# The error cannot fall to zero. Few images fall into a bin, and their share of right answers differs from the probability by
# chance. The *floor* is the error that a calibrated model would have: the images keep the probabilities that this model gave,
# and their classes are drawn from them. Only what lies above the floor can be blamed on the model. Means over seeds, on the
# phantom:

# %%
on_phantom.calibration()

# %% [markdown]
# The error is weighted to the study's frequencies and averaged over ten classes. Most of them are rare, and every model
# calls them unlikely with good reason. So the error is small for all: compare it with its floor, not with zero.
#
# ## What we may conclude
#
# - Whatever a model scores above the better shortcut, it must have from something that the shortcuts cannot use. The same
#   images hold far more than these models find in this budget, as the ResNet-18 shows: we rank *early* learning.
# - What is around the mechanism moves the scores, too: the learning rate that of the ResNet by more than any two mechanisms
#   differ, how often rare classes are drawn by as much as some do. A table of mechanisms is one *under one recipe*.
# - What mixing adds on the phantom is in the figure of gains. {sentence}`10_training:gain.all.conclusion` Whether that
#   returns on real MRI is in the last row of its verdicts.
# - Which mechanism is best is not settled by one run each. What eight seeds settle is in the planned comparisons, for these
#   two data sets, at this size. Chapter 14 gives the verdicts.
#
# These images are drawings with known answers; they rank how models learn this drawing and say nothing about patients.
# Measured with the preset `small` and a convolutional stem, where mixing is
# {value}`11_cost:trained.softmax.mixing_share|.0%` of softmax's arithmetic; do not carry the ranking to the large preset or
# to larger images. For research and teaching, not for clinical use.
#
# ## Exercises
#
# ````{exercise} A leaky split
# :label: ex-training-leak
#
# A colleague split slices at random, without asking which patient they came from. Write `leaks(train, test)`: given the
# patient ids of the training slices and of the test slices, return the set of patients that stand on both sides.
# ````

# %% tags=["skip-execution"]
def leaks(train, test):
    ...

check("training.leaks", leaks)

# %% [markdown]
# ````{solution} ex-training-leak
# :class: dropdown
#
# ```python
# def leaks(train, test):
#     return set(train) & set(test)
# ```
#
# One line. Any split by slice fails it once a patient has slices on both sides; {cite}`yagis2021` measured what that does
# to accuracy. And without ids, as in `brain-tumor-mri`? Then only the pictures can tell: chapter 01 searches for near copies
# across the splits. Finding none does not prove that there is no patient on both sides.
# ````
#
# ````{exercise} What could we have seen at all?
# :label: ex-training-mdd
#
# Two models are scored on the same $n$ images. Let $s$ be the standard deviation over images of the difference "first
# right minus second right". Which difference of accuracies will a two-sided test at the level $\alpha = 0.05$ find with
# power 0.8? Write `minimal_difference(s, n)`.
#
# Then use it. Half the width of a 95 % interval above is about $1.96\,s/\sqrt n$. Take `xca` against softmax: which $s$
# does its interval tell? How many test images would be needed to find a difference as large as the one that is printed?
# ````

# %% tags=["skip-execution"]
def minimal_difference(s, n):
    ...

check("training.minimal_difference", minimal_difference)

# %% [markdown]
# ````{solution} ex-training-mdd
# :class: dropdown
#
# The difference has standard error $s/\sqrt n$. To be found with power 0.8 it has to lie $z_{0.975} + z_{0.8}$ standard
# errors from zero.
#
# ```python
# from statistics import NormalDist
#
# def minimal_difference(s, n):
#     z = NormalDist().inv_cdf
#     return (z(0.975) + z(0.8)) * s / n**0.5
# ```
#
# With half width $h$ at $n$ images, $s = h\sqrt n / 1.96$. A difference $d$ is found with power 0.8 from
# $((1.96 + 0.84)\,s/d)^2 = n\,(1.43\,h/d)^2$ images on.
# ````
#
# **An open question.** "Its own rate" gives each model three tries with one knob. What do three learning rates *not* make
# equal between a ResNet and a pyramid of attention? How would you give each model the same *effort* of tuning, and what
# would you hold equal then?
#
# ## Quiz
#
# ```{dropdown} 1. Which top-1 accuracy does the answer "normal" score on the study's class counts, without looking?
# {value}`study-2022/14_results:derived.majority_share|.1%`.
# ```
#
# ```{dropdown} 2. The intervals of two models overlap in the table of scores. Can nothing be said?
# Not so. On the same images the paired difference is usually sharper than the two intervals. Look for two such models above.
# ```
#
# ```{dropdown} 3. Five seeds of two models, one always better. Significant at 0.05 by an exact sign-flip test?
# No. The least possible two-sided p with five seeds is 2/32, which is above 0.05.
# ```
#
# ```{dropdown} 4. Why is the test set scored once?
# Each look is a choice that could be made because of it. What was chosen on the test set is no longer a test.
# ```
#
# **Three misconceptions**
#
# - *"More parameters, fairer comparison."* Equal parameters are not equal arithmetic, and neither is equal time.
# - *"The interval covers everything."* It covers what was drawn again: test images in the first comparisons, seeds and test
#   images in the planned ones. It never covers other data or another recipe.
# - *"No significant difference means equal."* It means undecided. To show equality one must show that the whole interval
#   lies within a margin that was named before.
#
# ## Redo it on your device
#
# `papermill notebooks/10_training.ipynb out.ipynb -p profile laptop`. On a GPU, `-p profile full` trains the large preset
# with eight seeds (the comparisons of single runs still take the first).
#
# ## Further reading
#
# - {cite}`fair2022`: the comparison whose pyramid this is, on ImageNet, where the order of the mechanisms is another one.
# - {cite}`yagis2021`: what slice-level splits do to accuracy in brain MRI.
# - {cite}`menon2021`: why subtracting the log prior is the right decision for balanced accuracy.
