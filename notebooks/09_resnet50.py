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
# # ResNet-50
#
# ```{admonition} In this chapter
# :class: note
# **You will learn** how a convolutional network mixes places, to compute its cost and its receptive field by hand, and to
# fold its normalisation away.
# **You need** chapter 02. Chapter 03 helps for comparing.
# **Time**: 35 minutes, exercises included.
# ```

# %% tags=["parameters"]
profile = "laptop"
device = "auto"
seed = 0

# %%
import pandas as pd
import torch

import medbench as mb
from medbench.book import mechanism, residual, start
from medbench.book.exercises import check

book = start("09_resnet50", globals())

# %% [markdown]
# ## The question
#
# Do we need attention at all?
#
# A convolution mixes each place with its neighbours, by weights that are the same everywhere and do not depend on the
# image. ResNet-50 {cite}`he2016` is the network that the transformers had to beat. It stands in every table of this book
# as the line from outside: another skeleton, another mixing.
#
# ```{admonition} Predict before you run
# :class: tip
# 1. Four times as many pixels: by which factor does the arithmetic of a convolution grow?
# 2. ResNet-50 sees 224 x 224 pixels. How many pixels across can one place of its last grid depend on: 32, 224, or more?
# 3. And how many does it *really* listen to?
# ```
#
# ## The idea in one picture
#
# One channel of a 3 x 3 convolution on a grid of 6 x 6 places: who mixes with whom, after one layer and after three?
# The definition is the one of all chapters.

# %% mystnb={"image": {"alt": "Two 36 by 36 mixing pictures. Left, after one 3 by 3 convolution, three narrow diagonal bands. Right, after three, wide bands that fade from the middle."}}
torch.manual_seed(book.seed)
x = torch.randn(1, 36, 16)
_, axes = mb.plots.figure(columns=2, width=7.5, height=3.3)
for ax, depth in zip(axes, (1, 3)):
    mixing = mb.mixing.matrix(residual.convolutions(depth, dim=16, grid=(6, 6)), x)
    mb.plots.who_mixes(mixing, ax, title=f"{depth} x (3 x 3 convolution)", bar=r"$\|\partial y_i/\partial x_j\|$ (1)")

# %% [markdown]
# Bands beside the diagonal: each place hears its neighbours to the left and right, above and below. Three layers reach
# three places far, and most strongly what is near. Nothing in the picture depends on what the image shows; with attention
# it does.
#
# ## The equation
#
# $$
# y_{o}(i) = \sum_{c=1}^{C_\text{in}} \sum_{\delta \in k \times k} W_{oc\delta}\; x_c(s\,i + \delta), \qquad
# \text{block:}\quad \mathrm{ReLU}\big(S(x) + \mathrm{BN}(W_3 \star \sigma(W_2 \star \sigma(W_1 \star x)))\big)
# $$ (eq-conv)
#
# with stride $s$, kernel side $k$, $\star$ for a convolution and $\sigma$ for BatchNorm and ReLU. $S$ is the identity, or a
# 1 x 1 convolution with BatchNorm where the size changes. A *bottleneck* block narrows the channels with a 1 x 1
# convolution, mixes places with a 3 x 3 one, widens them again and adds what came in.
#
# The model is timm's own {cite}`wightman2019timm`; here is how the book asks for it.
#
# ```{literalinclude} ../../medbench/models.py
# :language: python
# :pyobject: build_resnet
# ```
#
# The preset that chapter 10 trains has a *small* ResNet beside the pyramids, not ResNet-50: the same bottleneck blocks,
# fewer and narrower, and a stem of three small convolutions. It has about as many parameters as a pyramid of that preset.
#
# ## The check
#
# For attention we compared with a reference. Here the reference is the model. So we check what we *say* about it, the
# equation: one bottleneck, spelt out with `unfold` and a matrix product, against timm's block.

# %%
preset = book.profile.cost_preset
model = mb.build_model("resnet50", preset=preset).double().eval()
block = model.layer2[0]
x = torch.randn(2, block.conv1.in_channels, 9, 9, dtype=torch.float64)
difference = (residual.spelt_out(block, x) - block(x)).abs().max().item()
print(f"largest difference: {difference:.1e}")

# %% [markdown]
# ## The limits
#
# ```{admonition} Predict before you run
# :class: tip
# 1. Shift the image by one step of the last grid. Does the output shift along?
# 2. Shuffle the pixels. Does the output shuffle along?
# 3. Show it an image twice as large. Does it refuse?
# ```

# %%
residual.limits(model)

# %% [markdown]
# A convolution knows neighbours but not places: away from the border a shifted image gives shifted features. A shuffle
# destroys all neighbourhoods. And any image size will do, for no weight belongs to a place.
#
# ## The cost
#
# One multiply-add for each output place, output channel, input channel and kernel cell:
#
# $$
# H_\text{out} W_\text{out} \cdot C_\text{out} \cdot C_\text{in}/g \cdot k^2
# $$ (eq-conv-cost)
#
# with $g$ groups. Is that all? We add this up over all layers and compare with the count.

# %%
size = (1, model.config.in_chans, *model.config.img_size)
by_hand, counted = residual.macs_by_hand(model, size), mb.cost.profile(model, size).macs
print(f"by hand {by_hand}, counted {counted}, equal: {by_hand == counted}")

# %% mystnb={"image": {"alt": "Multiply-adds against the image side from 112 to 448 pixels, logarithmic axes: the ResNet and the pyramid without mixing with slope two, the pyramid with softmax attention steeper."}}
rows = []
for name in ("resnet50", "softmax", "none"):
    for side in (112, 224, 448):
        sized = mb.build_model(name, preset=preset, img_size=side)
        costs = mb.cost.profile(sized, (1, sized.config.in_chans, side, side))
        rows.append((name, side, costs.macs / 1e9))
table = pd.DataFrame(rows, columns=["model", "side_px", "gmacs"])
mb.plots.curves(table, "side_px", "gmacs", log=True, highlight="resnet50", xlabel="image side (px)", ylabel="cost (GMAC)");

# %% [markdown]
# Four times the pixels, four times the arithmetic: convolutions are linear in the number of places. The ResNet starts
# higher than the pyramids and stays parallel to `none`, while softmax bends upwards.
#
# At the size of the study it needs {value}`11_cost:cost.resnet50.macs|.2f G`, softmax attention in the pyramid
# {value}`11_cost:cost.softmax.macs|.2f G`. The study says that it needs
# {value}`study-2022/14_results:claim.resnet50_flops` times as many; its own table gives
# {value}`study-2022/14_results:derived.resnet50_over_softmax|.1f`.
#
# ## One knob: depth and what is really seen
#
# The **receptive field** is what one output place *can* depend on. The **effective** one is what it does depend on
# {cite}`luo2016`. We take the gradient of one place in the middle, after each of the four stages.

# %%
image = torch.rand(1, *size[1:], dtype=torch.float64, generator=torch.Generator().manual_seed(book.seed))
field = residual.fields(model, image)
field

# %% [markdown]
# The first column is the whole reach, which for the deep stages may be cut off by the image. The second is the side of the
# square that holds nine tenths of the gradient. It is clearly smaller: a network with random weights listens mostly to the
# middle of what it could hear. Once the image cuts the reach off, the two can no longer be compared. (A fresh ResNet of
# timm starts with its residual branches switched off; they were switched on for this table, for otherwise it would show
# the stem alone.)
#
# ## One brain slice
#
# And a trained one? The slice of chapter 03. We ask which pixels a place of the second stage depends on, once inside the
# lesion and once at its mirror image.

# %%
exp = mechanism.experiment("resnet50", book)
data = mb.load_data(exp.data)
run = mb.fit(mb.build_model(exp.model), data, exp.training)

# %% mystnb={"image": {"alt": "A drawn brain slice with an outlined lesion and two maps over it: the pixels on which a place in the lesion and its mirror image depend in the trained ResNet, two spots of limited size."}}
batch = mechanism.brain_slice()
matrix, grid = residual.mixing_of(run.model, batch.images)
inside, opposite = mechanism.two_tokens(batch, grid)
maps = {"place in the lesion": (matrix, inside), "its mirror image": (matrix, opposite)}
mb.plots.mixing_maps(batch.images[0], maps, grid, batch.lesion[0]);

# %% [markdown]
# Two spots around the places that we asked for. Compare with windows in chapter 08, whose spots have sharp edges, and with
# softmax in chapter 03, which reaches the other half.

# %%
rows = mechanism.mixing_rows(matrix, grid)
mb.results.record("mixing.resnet50", rows, to=book.results, seed=book.seed)
mechanism.mixing_table(rows, grid)

# %% [markdown]
# These numbers are those of one stage, on its grid; they are not those of one layer as in the mechanism chapters, so
# compare the pictures rather than the digits.
#
# ## What it scores

# %% mystnb={"image": {"alt": "Balanced accuracy of all models with 95 percent intervals, the ResNet highlighted."}}
mb.plots.scores(mechanism.recorded("balanced_accuracy", device=book.device), highlight="resnet50");

# %% [markdown]
# The ResNet reaches {value}`10_training:phantom.resnet50.balanced_accuracy|±`, the pyramid with softmax
# {value}`10_training:phantom.softmax.balanced_accuracy|±`, and the pyramid without mixing
# {value}`10_training:phantom.none.balanced_accuracy|±`. The two families differ in everything, so this comparison says
# nothing about attention as such.
#
# These images are drawings with known answers; they rank how models learn this drawing and say nothing about patients.
# For research and teaching, not for clinical use.
#
# Where does it fail? Of the first thousand test images, these three it gets wrong with the greatest confidence.

# %% mystnb={"image": {"alt": "Three drawn slices that the ResNet classifies wrongly with great confidence, lesions outlined, true and chosen class above each."}}
names = [mb.phantom.CLASS_NAMES[key] for key in data.classes]
seen = data.test.take(slice(1000))
mb.plots.failures(mb.predict(run.model, seen), seen, names, prior=data.prior);

# %% [markdown]
# Are these other images than those on which the pyramids failed?
#
# ## Exercises
#
# ````{exercise} By hand
# :label: ex-resnet-by-hand
#
# Write `by_hand(layers, size)`. `layers` is a list of `(in, out, kernel, stride, groups)` with odd kernels and padding
# `kernel // 2`; `size` is the side of the square input. Return the multiply-adds and the receptive field in pixels. A
# layer widens the field by `kernel - 1` steps; one step is the product of all strides before it, in pixels.
# ````

# %% tags=["skip-execution"]
def by_hand(layers, size):
    ...

check("resnet50.by_hand", by_hand)


# %% [markdown]
# ````{solution} ex-resnet-by-hand
# :class: dropdown
#
# Each layer widens the field by $k-1$ steps, and a step is worth the product of all strides before it.
#
# ```python
# def by_hand(layers, size):
#     macs, field, jump = 0, 1, 1
#     for c_in, c_out, k, s, g in layers:
#         size = (size - 1) // s + 1
#         macs += size**2 * c_out * c_in // g * k**2
#         field, jump = field + (k - 1) * jump, jump * s
#     return macs, field
#
# check("resnet50.by_hand", by_hand)
# ```
# ````
#
# ````{exercise} Fold the BatchNorm away
# :label: ex-resnet-fold
#
# In evaluation a BatchNorm is a factor and a shift for each channel. Write `fold(conv, bn)` that returns one `Conv2d` with
# a bias that does what both did. Leave the given layers as they are.
# ````

# %% tags=["skip-execution"]
def fold(conv, bn):
    ...

check("resnet50.fold", fold)

# %% [markdown]
# ````{solution} ex-resnet-fold
# :class: dropdown
#
# ```python
# import copy
#
# def fold(conv, bn):
#     factor = bn.weight / (bn.running_var + bn.eps).sqrt()
#     folded = copy.deepcopy(conv)
#     shift = conv.bias if conv.bias is not None else 0
#     folded.weight = torch.nn.Parameter(conv.weight * factor[:, None, None, None])
#     folded.bias = torch.nn.Parameter((shift - bn.running_mean) * factor + bn.bias)
#     return folded
#
# check("resnet50.fold", fold)
# ```
#
# Is the folded model faster? Measure it as in chapter 12, with an A/A control beside it.
# ````
#
# **An open question.** The effective receptive field of a trained network differs from that of a random one. What would
# you train it on to make it wide?
#
# ## Quiz
#
# ```{dropdown} 1. How do the multiply-adds of a 3 x 3 convolution with stride 2 compare with stride 1?
# A quarter: there is a quarter of the output places.
# ```
#
# ```{dropdown} 2. What share of a bottleneck's arithmetic mixes places?
# That of the 3 x 3 convolution. The two 1 x 1 convolutions mix channels alone.
# ```
#
# ```{dropdown} 3. Do the weights of a convolution depend on the image?
# No. Those of attention do.
# ```
#
# ```{dropdown} 4. Parameters of ResNet-50 with 10 and with 1,000 classes: what is the difference?
# 2,049 x 990: 2,048 features and a bias for each class.
# ```
#
# **Three misconceptions**
#
# - *"A large receptive field means that it uses the whole image."* It may. The gradient tells whether it does.
# - *"Convolutions are old, so they are slow."* They are among the best optimised operations there are; chapter 12 shows it.
# - *"Transformers outperform the CNN."* In the study two of its transformers score below its ResNet-50.
#
# ## Where the study and its code differ from the paper
#
# - The study's parameters and FLOPs belong to a head of 1,000 classes, for this model as well. They are
#   {value}`study-2022/11_cost:cost.resnet50.params|.1f M` and {value}`study-2022/11_cost:cost.resnet50.macs|.2f G`,
#   the first as a counter has it. How the second came about we do not know (chapter 02).
# - It cites another network's paper for it. The right one is {cite}`he2016`.
# - It has another recipe in most papers than transformers have; see {cite}`wightman2021` for how much a recipe can do.
#
# ## Further reading
#
# - {cite}`he2016`: residual connections and bottlenecks.
# - {cite}`luo2016`: the effective receptive field.
# - {cite}`araujo2019`: receptive fields of many networks, computed.
# - {cite}`wightman2021`: an old network with a new recipe.
