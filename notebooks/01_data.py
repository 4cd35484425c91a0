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
# # The data
#
# ```{admonition} In this chapter
# :class: note
# **You will learn** what the ten classes of the study mean, how this book draws them and why it draws at all, how a
# data set can give its labels away, and what a split must keep apart.
#
# **You need** nothing but curiosity; no medical knowledge.
#
# **Time**: 40 minutes, the quiz and the exercises included.
# ```
#
# Everything medical on this page is general knowledge with its source. It is not advice. For research and teaching,
# not for clinical use.

# %% tags=["parameters"]
profile = "laptop"
device = "auto"
seed = 0

# %%
import numpy as np
import pandas as pd

import medbench as mb
from medbench.book import drawings, start
from medbench.book import patients as leaks
from medbench.book.exercises import check

book = start("01_data", globals())

# %% [markdown]
# ## The question
#
# What must a set of images be like, so that a score on it says something about the model?
#
# The study {cite}`study2022` trained on brain MRI of RadImageNet {cite}`mei2022radimagenet`: ten classes, many
# thousand slices. That data is given on request, so it cannot come with a book. And even with it in hand some
# questions stay open. Where exactly is the lesion? What would this head look like without it? Is there a cue that has
# nothing to do with disease?
#
# So this book draws its images. The heads come from a real atlas. The lesions are drawn into them by rule, so we know
# where each one is and what it did. A medical physicist would call such an object of known content a *phantom*.
#
# ```{admonition} Predict before you run
# :class: tip
# 1. A program sees only how bright the pixels of a slice are, not where they lie. Can it tell ten findings apart
#    better than by guessing? Should it?
# 2. Someone always answers "normal". On the study's images, how often is that right: 10, 30, 60 or 90 times out of
#    100?
# ```
#
# ## Ten classes
#
# The names are those of the data set, the explanations are ours. All drawings are like *FLAIR*, a contrast on which
# fluid is dark and most lesions are bright {cite}`hajnal1992`. Whether a lesion is bright or dark depends on the
# contrast, so one picture never tells everything. A general source for all classes is {cite}`osborn2017`.
#
# **Acute infarct** (`acute_infarct`)
# : Brain tissue that has lately lost its blood supply, mostly because an artery is blocked. In the first days it is
#   bright on diffusion-weighted images and dark on the ADC map; on FLAIR it becomes bright after some hours
#   {cite}`schaefer2000,lansberg2001,allen2012`. *Drawn*: a bright wedge in the territory of one artery, grey and
#   white matter alike, the furrows in it closed by swelling; or a bright oval deep inside.
#
# **Arteriovenous anomaly** (`arteriovenous_anomaly`)
# : A tangle of vessels in which arteries run into veins with no capillaries between. Fast blood leaves no signal, so
#   the vessels are dark tubes {cite}`geibprasert2010`. *Drawn*: a knot of dark curls, one vein leading away, one
#   feeding artery, nothing pushed aside.
#
# **Chronic infarct** (`chronic_infarct`)
# : An old infarct. The tissue is gone and fluid fills the hole, with a bright rim of scar on FLAIR. What is near
#   widens into the free room {cite}`allen2012,wardlaw2013strive`. *Drawn*: a dark cavity with a bright rim, a larger
#   ventricle on that side, wider furrows. Loss, never push.
#
# **Edema** (`edema`)
# : Swelling: too much water in the tissue. It is a sign with many causes. The common kind follows the white matter
#   like fingers and spares the cortex {cite}`ho2012`. *Drawn*: bright fingers in the white matter of one side, the
#   ventricle pressed, the midline shifted, and no core.
#
# **Extra-axial lesion** (`extra`)
# : Something inside the skull but outside the brain's own substance: a tumour of its coverings (meningioma), or blood
#   or fluid between them. Typical signs are a broad base on the covering, a thin cleft of fluid, and cortex pushed
#   inwards {cite}`watts2014`. *Drawn*: a smooth mass on the inner side of the skull or on the falx, or a crescent
#   under the skull.
#
# **Focal FLAIR hyperintensity** (`focal_flair_hyper`)
# : One small bright spot on FLAIR. It is a description, not a disease; it has many possible causes
#   {cite}`kanekar2014`. *Drawn*: one round spot in the white matter, at times two. No cavity, no push.
#
# **Intra-axial lesion** (`intra`)
# : Something within the brain's own substance: a tumour, a bleeding, an abscess {cite}`mabray2015,bradley1993`.
#   *Drawn*: a mass with an irregular rim, a darker core, swelling around it, and push; or a bleeding with a bright
#   centre and a dark rim.
#
# **Normal** (`normal`)
# : No finding was named in the report. That is not the same as healthy. *Drawn*: heads of all degrees of age-like
#   shrinkage, with thin bright caps at the ventricles and tiny dots. Both are common in healthy older people
#   {cite}`fazekas1987,wen2004`, so a model must not call them disease.
#
# **Pituitary lesion** (`pituatary_lesion`, the data set's spelling)
# : A lesion of the gland at the base of the brain. The most common is a benign tumour, an adenoma
#   {cite}`molitch2017`. *Drawn*: a round or snowman-shaped mass in the midline that fills the dark star of fluid
#   above the gland.
#
# **White matter changes** (`white_matter_changes`)
# : Bright areas on both sides, around the ventricles and in the deep white matter. They are common with age and with
#   disease of small vessels {cite}`wardlaw2013strive,fazekas1987`. *Drawn*: bands along the ventricles and many
#   spots, nearly the same on both sides.
#
# Most of these are findings, what a picture shows, and not diagnoses.
#
# ## A page of drawings
#
# Can a stranger see which is which? Two heads of each class, with the lesion outlined.

# %% mystnb={"image": {"alt": "Twenty drawn brain slices, two of each class, with the lesions outlined in yellow; normal heads have no outline."}}
names = list(mb.phantom.CLASS_NAMES.values())
page = drawings.drawn(20, seed=book.seed + 1)
order = np.argsort(page.labels, kind="stable")
titles = [names[label] for label in page.labels[order]]
mb.plots.gallery(page.images[order], titles, page.lesion[order]);

# %% [markdown]
# They are caricatures. A radiologist will find much that is wrong: one contrast, single slices, tidy lesions, one
# lesion a head. What they have is what real data lack: a mask for every lesion, as many as we like, and a rule that
# can be read (`medbench/phantom`).
#
# The heads are slices of the ICBM-152 2009 atlas {cite}`fonov2009,fonov2011`, an average of 152 brains, which comes
# with the library nilearn {cite}`abraham2014`. (Copyright of the atlas: 1993-2004 Louis Collins, McConnell Brain
# Imaging Centre, Montreal Neurological Institute, McGill University.) Each head is a random slice, turned, stretched
# and smoothly warped, with random contrasts for its tissues as in {cite}`billot2023`, a skull, uneven coil
# brightness, and the noise of magnitude images {cite}`gudbjartsson1995`. So all heads descend from one: their variety
# is less than that of people.
#
# ## The same head without its lesion
#
# What did a lesion do to its head? For a drawing this can be answered exactly. Each image has a *healthy twin*: same
# head, same slice, same noise, no lesion.

# %% mystnb={"image": {"alt": "Three rows of five slices: heads with a lesion outlined, their healthy twins with the affected region outlined, and the differences, bright in and around the lesion."}}
keys = ["acute_infarct", "chronic_infarct", "edema", "extra", "intra"]
labels = [mb.phantom.CLASSES.index(key) for key in keys]
sick = mb.phantom.generate(labels, range(40, 45), seed=2022)
twin = mb.phantom.twin(labels, range(40, 45), seed=2022)
difference = np.abs(sick.images.numpy().astype(int) - twin.images.numpy())
pictures = [*sick.images, *twin.images, *difference]
titles = [names[label] for label in labels] + 5 * ["healthy twin"] + 5 * ["difference"]
outlines = [*sick.lesion, *sick.affected, *5 * [None]]
mb.plots.gallery(pictures, titles, outlines);

# %% [markdown]
# The first row outlines the lesion, the second what it affects. The lowest row is not only the lesion. Around a mass
# the brain is displaced, beside an old infarct the ventricle has widened, and then edges appear in the difference. So
# there are two masks: `lesion`, the diseased tissue itself, and `affected`, swelling and tissue that has moved.
# Chapter 13 asks whether a model looks at either.
#
# Some classes differ by one sign only. Five pairs are worth a second look:

# %% mystnb={"image": {"alt": "Ten slices in two rows, five pairs one above the other: acute over chronic infarct, chronic infarct over intra-axial, edema over intra-axial, focal hyperintensity over white matter changes, extra-axial over intra-axial."}}
upper = ["acute_infarct", "chronic_infarct", "edema", "focal_flair_hyper", "extra"]
lower = ["chronic_infarct", "intra", "intra", "white_matter_changes", "intra"]
labels = [mb.phantom.CLASSES.index(key) for key in upper + lower]
pairs = mb.phantom.generate(labels, range(60, 70), seed=2022, sella_slices=False)
mb.plots.gallery(pairs.images, [names[label] for label in labels], pairs.lesion);

# %% [markdown]
# From left to right: furrows closed or widened; a hole that pulls or a mass that pushes; swelling without or with a
# core; one spot or many on both sides; on the surface or within. A model that solves the task has to use such signs,
# unless it finds something easier.
#
# ## How often
#
# How many images of each class are there? Left, the study's counts. Right, the mild prior with which our small models
# are trained: the square root of the counts, so that rare classes are seen often enough in a short run.

# %% mystnb={"image": {"alt": "Two bar charts over the ten classes. The study's counts run from tens to tens of thousands on a logarithmic axis, with normal far ahead; the training prior runs from a few per cent to about a third."}}
counts, prior = np.array(list(mb.phantom.STUDY_COUNTS.values())), mb.phantom.prior("sqrt")
axes = mb.plots.figure(columns=2, width=9, height=3.4)[1]
for ax, values, label in ((axes[0], counts, "images in the study (logarithmic)"),
                          (axes[1], prior, "share in training (1)")):
    ax.barh(names, values, color="#5b6b7a")
    ax.set(xlabel=label)
    ax.invert_yaxis()
axes[0].set(xscale="log", xlim=(10, None))
axes[1].set_yticklabels([]);

# %%
found = {"majority_accuracy": counts.max() / counts.sum(),
         "majority_balanced_accuracy": 1 / len(counts), "rarest_images": counts.min()}
rows = [{"quantity": name, "value": value, "unit": "1", "n": counts.sum()}
        for name, value in found.items()]
mb.results.record("study", rows, to=book.results)
pd.DataFrame(rows)[["quantity", "value", "n"]]

# %% [markdown]
# Whoever always answers "normal" is right for {value}`01_data:study.majority_accuracy|.1%` of the study's images.
# That is the *majority baseline*. An accuracy means nothing without it. *Balanced accuracy* is the mean over classes
# of the share that was found {cite}`brodersen2010`; always answering the same gets
# {value}`01_data:study.majority_balanced_accuracy|.0%` with ten classes, however common one of them is. This book
# leads with balanced accuracy.
#
# The rarest class has {value}`01_data:study.rarest_images|.0f` images in all. In a test set of a tenth of that, one
# image more or less changes its score by a great deal. So our test set has equally many of each class.
#
# ## Train, validation, test

# %%
exp = mb.Experiment.preset(book.profile.preset, "softmax", seed=book.seed,
                           profile=book.profile)
data = mb.load_data(exp.data)
print("fingerprint:", data.fingerprint)
pd.DataFrame({s.name: s.class_counts for s in (data.train, data.val, data.test)})

# %% [markdown]
# Models learn from `train`. Every choice is made on `val`. `test` is looked at once for each trained model. The
# fingerprint stands for the very bytes: the same number, the same images, on any machine.
#
# One property makes this safe. A sample depends on its seed and its own number, and on nothing else. Is that true? We
# draw number 7 alone and in company.

# %%
alone = mb.phantom.generate(None, [7], seed=5)
company = mb.phantom.generate(None, [3, 7, 1, 12], seed=5)
same = (alone.images[0] == company.images[1]).all()
print("the same to the last pixel:", bool(same))

# %% [markdown]
# So it does not matter how images are grouped, or who draws them. Training, validation and test use numbers that lie
# far apart, and no head is drawn twice.
#
# ## Shortcuts
#
# Now to what goes wrong with data. A *shortcut* is a cue that gives the label away without the thing we mean to learn
# {cite}`geirhos2020`. Models take shortcuts whenever there are any: scanner marks in place of pneumonia
# {cite}`zech2018`, the layout of the picture in place of COVID-19 {cite}`degrave2021`. And the score looks fine,
# until the model meets images from elsewhere.
#
# Our own first drawings were no better. Large lesions changed the overall brightness of a slice. The pituitary class
# was drawn low in the head and all others higher up, so the level of the slice told it. How do we find such things?
# By asking programs that *cannot* see what we mean:
#
# - one sees 42 statistics of the brightness of the pixels, and not where they lie;
# - one sees thumbnails of 28 x 28 pixels, through a linear model;
# - one is told the height of the slice and nothing else;
# - one sees the statistics of the image with the lesion covered. If it can still tell the class from normal,
#   something outside the lesion gives it away.
#
# The better one of them does, the wider the shortcut. Before: drawings without our cures.

# %%
def asked(**cures):
    count = book.profile.num_val
    train = drawings.drawn(2 * count, seed=3, **cures)
    test = drawings.drawn(count, drawings.TEST, seed=3, **cures)
    return drawings.shortcut_rows(train, test, bootstrap=book.profile.bootstrap)

before = asked(**drawings.UNCURED)
mb.results.record("shortcut.before", before, to=book.results);

# %% [markdown]
# After: the same heads and lesions with three cures. Every image goes through a random increasing curve of brightness,
# as if each came from another scanner, so that overall brightness says little. Pituitary lesions are seen at the level of
# that gland. So one head in six of every other class is cut there too, also normal ones. Such a low slice is given the
# histogram that the same head has higher up. And all heads get harmless bright and dark things: dots, caps, vessels, lumps
# of the scalp.

# %%
after = asked()
mb.results.record("shortcut.after", after, to=book.results)
drawings.before_and_after(before, after).round(2)

# %% [markdown]
# Rows with *covered* are AUROCs of one class against normal heads, with the lesion covered. What we see:
#
# - Brightness alone told the classes apart with an AUROC of
#   {value}`01_data:shortcut.before.intensity_statistics_macro_auroc|.2f`; with the cures it is
#   {value}`01_data:shortcut.after.intensity_statistics_macro_auroc|.2f`. One half is guessing.
#   Less, not nothing: a large bright lesion changes the brightness itself.
# - The height of the slice gave the pituitary class away with
#   {value}`01_data:shortcut.before.slice_height_auroc.pituatary_lesion|.2f`, now with
#   {value}`01_data:shortcut.after.slice_height_auroc.pituatary_lesion|.2f`. It has to stay above one half: a
#   pituitary lesion can only be drawn at its place, so a slice far above it speaks against the class. That is
#   anatomy. For ten classes it is of little use: the balanced accuracy of the height alone is
#   {value}`01_data:shortcut.after.slice_height_balanced_accuracy|.2f`, where guessing has a tenth.
# - Even with the lesion covered, the pituitary class was found with
#   {value}`01_data:shortcut.before.masked_auroc.pituatary_lesion|.2f`. Now it is
#   {value}`01_data:shortcut.after.masked_auroc.pituatary_lesion|.2f`. With so few images these numbers scatter around
#   one half.
# - Thumbnails still find something: {value}`01_data:shortcut.after.thumbnails_28_balanced_accuracy|.2f` against a
#   tenth by guessing. They should, since a large bright lesion can be seen in a small picture. A model that deserves
#   its cost must do clearly better, and these baselines stand in the table of chapter 10 beside the models.
#
# Before and after share everything but the cures, so the difference is the cures' work.
#
# ## One knob: a mark of the site
#
# A common shortcut in real data is the place where an image was made {cite}`zech2018`: sick people go to one hospital,
# healthy ones to another, and the scanners differ. We can draw that. With `confounding` set to 1, sick heads have a small
# mark in one corner and normal heads in the other; at 0 there are no marks. A linear model learns "sick or normal"
# from thumbnails. It is then tested on the same kind of images, and on images without marks.
#
# ```{admonition} Predict before you run
# :class: tip
# With full confounding, what will the score be at home? And elsewhere?
# ```

# %%
rows = drawings.confounding_rows((0.0, 0.5, 1.0), book.profile.num_val // 2, seed=4)
mb.results.record("confounding", rows, to=book.results)
pd.DataFrame([row["context"] | {"AUROC": row["value"]} for row in rows]).round(2)

# %% mystnb={"image": {"alt": "Four slices drawn with full confounding: two sick heads with a small white mark in the upper left corner, two normal heads with the mark in the lower right corner."}}
marked = drawings.half_normal(4, seed=4, confounding=1.0)
mb.plots.gallery(marked.images, [names[k] for k in marked.labels]);

# %% [markdown]
# At home the confounded model looks excellent: AUROC {value}`01_data:confounding.auroc_100_home|.2f`. Elsewhere it
# guesses: {value}`01_data:confounding.auroc_100_elsewhere|.2f`. Compare the first row: without marks this
# linear model finds next to nothing. So the mark makes a worthless model look perfect. **A
# high score on data from the same source cannot tell this from success.** Only other data can, or a look at what the
# model looks at. The knob stands at 0 everywhere else in this book.
#
# ## Who is in both halves?
#
# One patient has many slices, and they look alike. What if some of them are for training and others for the test? Let
# us take the extreme case: 60 heads, six "slices" of each (shifted a little, with new noise), and **a label drawn by
# coin flip** for each head. There is nothing to learn. A nearest neighbour is tested on slices split at random, then
# on whole heads.

# %%
from sklearn.neighbors import KNeighborsClassifier

heads = drawings.drawn(60, seed=6).images.numpy()
pixels, patients = drawings.slices_of(heads, 6, seed=book.seed)
rng = np.random.default_rng(book.seed)
coin = rng.integers(0, 2, 60)[patients]
tests = {"by_slice": rng.random(len(pixels)) < 0.3,
         "by_patient": np.isin(patients, rng.choice(60, 18, replace=False))}

# %%
def row(name, test):
    neighbour = KNeighborsClassifier(1).fit(pixels[~test], coin[~test])
    return {"quantity": f"accuracy_{name}", "value": neighbour.score(pixels[test], coin[test]),
            "unit": "1", "n": test.sum()}

rows = [row(name, test) for name, test in tests.items()]
mb.results.record("leakage", rows, to=book.results, seed=book.seed)
pd.DataFrame(rows)[["quantity", "value", "n"]].round(2)

# %% [markdown]
# Split by slice, coin flips are "predicted" with an accuracy of {value}`01_data:leakage.accuracy_by_slice|.2f`. Split
# by patient it is {value}`01_data:leakage.accuracy_by_patient|.2f`, near one half, with the scatter of a small test.
# The first number measures whether the program recognises a head.
#
# Those labels meant nothing. What happens with labels that do? The phantom can draw patients: several slices of one
# head, at heights that differ by a few millimetres, each with its own noise. Two patients, five slices each:

# %% mystnb={"image": {"alt": "Ten slices in two rows: five slices of one head with the same lesion, then five of another; within a row only details differ."}}
count = max(30, book.profile.num_train // 45)
scans, patient = leaks.scans(count, 5, seed=book.seed + 7)
titles = [f"patient {p}" for p in patient[:10]]
mb.plots.gallery(scans.images[:10], titles, scans.lesion[:10]);

# %% [markdown]
# Now the same small transformer, the same recipe, the same images, trained twice. First the *slices* are dealt out to
# training, validation and test at random, then the *patients*.
#
# ```{admonition} Predict before you run
# :class: tip
# Ten classes, so guessing scores a tenth in balanced accuracy. What will the two tests say?
# ```

# %%
exp = mb.Experiment.preset(book.profile.preset, "softmax", book.seed, book.profile,
                           device=str(book.device), epochs=4 * book.profile.epochs,
                           threads=0)
splits = {by: leaks.divided(scans, patient, by, seed=book.seed) for by in ("slice", "patient")}
told = {}
for by, dealt in splits.items():
    run = mb.fit(mb.build_model(exp.model), dealt, exp.training)
    told[by] = mb.evaluate(run.model, dealt.test, bootstrap=book.profile.bootstrap)

# %%
rows, table = leaks.fall(told, splits)
mb.results.record("leakage", rows, to=book.results, seed=book.seed)
table

# %% [markdown]
# Split by slice: {value}`01_data:leakage.balanced_accuracy_by_slice|±`. Split by patient:
# {value}`01_data:leakage.balanced_accuracy_by_patient|±`. The same model on the same images falls by
# {value}`01_data:leakage.fall|±`, mostly, we think, because it does not meet its patients again. (It also learned from
# fewer heads, though from as many images. And it is one run each: the interval is of other test images, not of other
# seeds.) The higher number is not a better model. It answers another question: "which of the heads that I know is this?"
# How the fall depends on the number of patients, we did not measure. {cite:t}`yagis2021` found the same with real brain
# MRI, there by tens of percentage points, and also with random labels. The study does not say how it split.
#
# So a data set should name its patients, and a split should be made of them. Where it names none, every result of
# this package says "no patient ids", and whether the split is by slice or its authors' own.
#
# ## Real images
#
# A drawing cannot replace the real thing. Chapter 10 therefore trains the same models on real MRI too:
#
# *brain-tumor-mri*: 2,824 of the 3,064 slices of Jun Cheng and colleagues {cite}`cheng2017,cheng2015`, T1-weighted
# with contrast agent, of 233 patients at Nanfang Hospital and Tianjin Medical University, 2005 to 2010. Licence: CC
# BY 4.0. Three classes: glioma, meningioma, pituitary tumour, with a box around each tumour.
#
# Before its numbers appear, this is what they can and cannot say:
#
# - Three tumour classes, no normals, contrast T1, patient ids lost: block split as proxy; location alone helps with
#   pituitary tumours.
# - *Block split* means: the slices keep their original order, in which one patient's slices follow each other. The
#   split takes contiguous blocks and leaves out eight slices at each border. That is a stand-in for patients, not the
#   real thing. The package cannot know this. It sees no patients, and says "slice-level split".
# - It is not the study's task. It checks whether what we say about drawings is at least not absurd on real scans.
#
# RadImageNet itself has CT, MRI and ultrasound images with 165 labels taken from radiology reports
# {cite}`mei2022radimagenet`. It has known exact duplicates, some of them in folders of different classes, and blank
# images {cite}`radimagenet17`. Whoever trains on it should look for them first.
#
# How does one look? One command opens every image of a source, counts, names what is damaged, and searches for
# copies: exact ones, and *near* ones whose thumbnails correlate, such as an image stored anew or the neighbouring
# slice of a head.
#
# ```bash
# python -m medbench data check $MEDBENCH_DATA/brain-tumor-mri/manifest.csv
# ```
#
# Here is what it found in two public sets. The second, *BreastMNIST* {cite}`medmnist2023`, has small ultrasound images
# with an official split; we use it to test our reader.

# %%
leaks.checked(book.device)

# %% [markdown]
# In the tumour slices, near copies lie within one split only: neighbouring slices, which the block split keeps
# together. In BreastMNIST {value}`edition/01_check:breastmnist.near_copies.in_another_split|.0f` of
# {value}`edition/01_check:breastmnist.images|.0f` images have a near copy in another split, and
# {value}`edition/01_check:breastmnist.exact_copies.in_another_class|.0f` are the same picture under two different
# labels. Its images are tiny, so some of the near copies may be chance. But a score on it, ours too, is not quite what
# it seems. Nobody's carelessness is needed for that: only that nobody looked.
#
# ```{admonition} What we may and may not conclude
# :class: important
# The phantom's images are drawings with known answers; they rank how models learn this drawing and say nothing about
# patients.
# ```
#
# ## Name the class
#
# Twenty heads. Every class occurs at least once. Write your answers down before you open the solution.

# %% mystnb={"image": {"alt": "Twenty numbered drawn brain slices without outlines, to be named by the reader."}}
quiz = drawings.quiz(20, seed=book.seed + 2022)
mb.plots.gallery(quiz.images, [str(k + 1) for k in range(20)]);

# %% tags=["hide-output"] mystnb={"image": {"alt": "The solution: the same twenty slices with their class names and the lesions outlined."}}
solution = [f"{k + 1}: {names[label]}" for k, label in enumerate(quiz.labels)]
mb.plots.gallery(quiz.images, solution, quiz.lesion);

# %%
todo = {"quantity": "radiologist", "value": None, "unit": "1", "n": 20,
        "reason": "nobody has taken it yet"}
mb.results.record("quiz", todo, to=book.results);

# %% [markdown]
# How many did you get? We would like to know how a radiologist does: it would say how far these drawings are from
# what they mean to show. State of affairs: {value}`01_data:quiz.radiologist`. If you are one, please open an issue
# with your answers and what looked wrong to you.
#
# ## Exercises
#
# ````{exercise} Always the same answer
# :label: ex-data-majority
#
# Write `majority(counts)`: accuracy and balanced accuracy of always answering the most frequent class, for a list of
# images per class. Return both numbers. A class may have no images; then it has no share that could be found. Check
# it on paper with 12, 5 and 3 images.
# ````

# %% tags=["skip-execution"]
def majority(counts):
    ...

check("data.majority", majority)

# %% [markdown]
# ````{solution} ex-data-majority
# :class: dropdown
#
# One class is found wholly, each other one not at all. With 12, 5 and 3 images: 12/20 and 1/3.
#
# ```python
# def majority(counts):
#     present = [count for count in counts if count > 0]
#     return max(counts) / sum(counts), 1 / len(present)
#
# check("data.majority", majority)
# ```
# ````
#
# ````{exercise} A split that keeps patients apart
# :label: ex-data-split
#
# Write `split_by_group(groups, share, seed)`. `groups` is an array with the patient of each image. Return an array of
# booleans, `True` for test: about `share` of the images, and no patient on both sides. Another seed gives another
# split.
# ````

# %% tags=["skip-execution"]
def split_by_group(groups, share, seed):
    ...

check("data.split_by_group", split_by_group)

# %% [markdown]
# ````{solution} ex-data-split
# :class: dropdown
#
# ```python
# import numpy as np
#
# def split_by_group(groups, share, seed):
#     names, sizes = np.unique(groups, return_counts=True)
#     order = np.random.default_rng(seed).permutation(len(names))
#     filled = np.cumsum(sizes[order]) <= share * len(groups)
#     return np.isin(groups, names[order[filled]])
#
# check("data.split_by_group", split_by_group)
# ```
#
# Drawing patients, not images, is the whole point. A patient with many slices can make the share a little uneven.
# ````
#
# **An open question.** The cures above were found one by one, by asking programs that should fail. How would you
# search for a shortcut that you have not thought of?
#
# ## Quiz
#
# ```{dropdown} 1. A model has an accuracy of nine in ten on ten classes. What do you ask first?
# How often the most frequent class occurs; then balanced accuracy, the interval, and how the split was made.
# ```
#
# ```{dropdown} 2. Why are statistics of brightness a good test of a data set, although nobody would use them as a model?
# Because they cannot see where anything is. Whatever they find is not the finding we mean.
# ```
#
# ```{dropdown} 3. Slices are shuffled, then split into training and test. What does the test measure?
# In part, whether the model recognises heads that it has seen. The coin-flip experiment shows how large that part can
# be.
# ```
#
# ```{dropdown} 4. A lesion is bright. Is it acute?
# It depends on the contrast and on time. Bright on FLAIR can be acute or old, harmless or not.
# ```
#
# **Three misconceptions**
#
# - *"Synthetic data are clean."* Ours had shortcuts, and the first models used them. Someone has to look.
# - *"More images cure a shortcut."* More images with the same cue teach the cue better.
# - *"Normal means healthy."* It means that no finding was named.
#
# ## What the study says, and what is right
#
# The study's primer explains several classes wrongly: *extra* as anything unusual, a FLAIR hyperintensity as more
# blood flow, white matter changes as changes of the shape of fibres. [The page on errata](../errata.md) lists each
# with its source, and what RadImageNet really holds.
#
# ## Further reading
#
# - {cite}`mei2022radimagenet`: the study's data.
# - {cite}`geirhos2020`: shortcuts, a readable overview.
# - {cite}`zech2018,degrave2021`: shortcuts in chest images, found by looking elsewhere.
# - {cite}`yagis2021,kapoor2023`: leakage, in brain MRI and in general.
# - {cite}`roberts2021,varoquaux2022`: what often goes wrong with learning from medical images.
# - {cite}`billot2023`: drawing brains at random in order to learn from them.
