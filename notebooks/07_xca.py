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
# # Cross-covariance attention
#
# ```{admonition} In this chapter
# :class: note
# **You will learn** to turn attention on its side, so that channels look at channels, to load a reference's weights
# strictly, and to see why this mechanism knows nothing of neighbours.
# **You need** chapter 03, and from statistics the words covariance and correlation.
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
from medbench.attention import ATTENTION
from medbench.book import mechanism, start
from medbench.book.exercises import check

book = start("07_xca", globals())

# %% [markdown]
# ## The question
#
# What if channels look at channels, and tokens only vote?
#
# Softmax attention multiplies an $N \times d$ matrix by a $d \times N$ one and gets $N \times N$ comparisons of tokens.
# XCA {cite}`elnouby2021xcit` multiplies the other way round, $d \times N$ by $N \times d$, and gets $d \times d$
# comparisons of channels. The number of tokens is summed away.
#
# ```{admonition} Predict before you run
# :class: tip
# 1. Four times as many tokens: by which factor does the arithmetic of mixing grow?
# 2. Double one channel of all queries. Does the output change?
# 3. Can one token reach another directly, as in softmax?
# ```
#
# ## The idea in one picture
#
# 36 random tokens with 32 channels, one head. On the left who mixes with whom among tokens, on the right the matrix that
# the layer computes: channels against channels.

# %% mystnb={"image": {"alt": "Left, a 36 by 36 mixing picture on a logarithmic scale: a bright diagonal, everything else filled and much fainter. Right, a 32 by 32 matrix of channel weights, nearly even with some brighter cells."}}
torch.manual_seed(book.seed)
layer = ATTENTION["xca"](32, 1, (6, 6)).eval()
layer.temperature.data.fill_(8.0)
x = torch.randn(1, 36, 32)
q, k, v = layer.heads(x)
unit = torch.nn.functional.normalize
A = (unit(q, dim=-2).mT @ unit(k, dim=-2) * layer.temperature).softmax(-1).detach()[0, 0]
mixing = mb.mixing.matrix(layer, x).log10()
_, (left, right) = mb.plots.figure(columns=2, width=7.5, height=3.3)
mb.plots.who_mixes(mixing - mixing.min(), left, title="tokens", bar="decades above the least (1)")
mb.plots.who_mixes(A, right, title="channels: the matrix A", bar="weight (1)")
right.set(xlabel="key channel", ylabel="query channel");

# %% [markdown]
# Left, every cell is filled, but faintly: the scale counts powers of ten. A token is mixed with itself, channel with
# channel. The others reach it only by moving the weights of $A$ a little, and in a sum over all tokens each moves little.
# Right, the weights: each row tells how one output channel is put together from all value channels, for every token alike.
#
# ## The equation
#
# $$
# A = \mathrm{softmax}\!\left(t\,\hat Q^\top \hat K\right) \in \mathbb R^{d \times d}, \qquad
# \mathrm{out} = V A^\top
# $$ (eq-xca)
#
# Each column of $\hat Q$ and $\hat K$ is one channel over all tokens, scaled to unit length. So an entry of
# $\hat Q^\top \hat K$ is a cosine between two channels, and the learned temperature $t$ of the head says how sharply
# the softmax picks. It runs over the key channels.
#
# ```{margin}
# **Shapes**, one image and one head:
# $\hat Q, \hat K, V$: $N \times d$;
# $A$: $d \times d$;
# output: $N \times d$.
# ```
#
# ```{literalinclude} ../../medbench/attention/xca.py
# :language: python
# :pyobject: XCA.mix
# :dedent: 4
# ```
#
# Here too the order is ours: the product of the raw columns is divided by their lengths, which is the product of the
# columns divided by their lengths, and takes $d^2$ divisions for each head in place of $2Nd$.
#
# ## The check
#
# timm {cite}`wightman2019timm` has the authors' layer. We load its weights with `strict=True`, so every name and shape
# must fit, and give its temperatures odd values, so that a slip there cannot hide.

# %%
from timm.models.xcit import XCA

C, h, grid = 96, 3, (7, 5)
timms = XCA(C, num_heads=h, qkv_bias=True).double().eval()
timms.temperature.data = torch.tensor([0.5, 2.0, 6.0], dtype=torch.float64).view(3, 1, 1)
ours = ATTENTION["xca"](C, h, grid).double().eval()
ours.load_state_dict(timms.state_dict(), strict=True)
x = torch.randn(2, 35, C, dtype=torch.float64)
print(f"largest difference: {(ours(x) - timms(x)).abs().max().item():.1e}")

# %% [markdown]
# The same function. Note that not every implementation is: some take the exponential of the temperature.
#
# ## The limits
#
# ```{admonition} Predict before you run
# :class: tip
# 1. Shuffle the tokens. Are the outputs shuffled alike?
# 2. Give every token twice. Do the outputs change? Think of the unit length.
# 3. Multiply one channel of all queries by ten. Does anything change?
# ```

# %%
q, k, v = ours.heads(x)
louder = q.clone()
louder[..., 0] *= 10
print(f"one query channel ten times louder moves the output by {(ours.mix(louder, k, v) - ours.mix(q, k, v)).abs().max().item():.0e}")
mb.mixing.limits(ours, x)

# %% [markdown]
# The sum over tokens has no order, so shuffled tokens give shuffled outputs: XCA knows nothing of places, and nothing of
# neighbours. Doubled tokens make each channel longer by $\sqrt 2$, and the unit length takes that out again. It takes a
# loud channel out too.
#
# Is there a limit in which it becomes softmax? No. Softmax chooses tokens, XCA chooses channels. With one channel a head
# $A$ is the number one, and the layer mixes nothing at all.
#
# ## The cost
#
# $\hat Q^\top \hat K$ takes $Nd^2$ multiply-adds a head, and so does $VA^\top$:
#
# $$
# \text{mixing} = 2Nd^2 h = 2NCd, \qquad\text{equal to softmax at}\quad N = d .
# $$ (eq-xca-cost)

# %% mystnb={"image": {"alt": "Multiply-adds of mixing against tokens, logarithmic axes: softmax with slope two, XCA with slope one, and XCA with local interaction parallel to it and a little higher."}}
variants = {"softmax": ("softmax", {}), "xca": ("xca", {}), "with local interaction": ("xca", {"lpi": True})}
costs = mechanism.cost_table(variants, sides=(4, 8, 16, 32, 64))
costs["counted"] = costs.counted.where(costs.model != "with local interaction")
mb.plots.cost_curves(costs, highlight="xca")
counted = costs.dropna(subset="counted")
print("counted = closed form:", (counted.counted == counted.closed_form).all())

# %% [markdown]
# A line of slope one that crosses softmax where $N = d$, at a few dozen tokens. Below it, in the last stage of the
# pyramid, XCA costs *more* than softmax. The third line is for later; it has no markers, for the local interaction is a
# step of the block and no part of the layer that is counted here.
#
# And the time?

# %%
times = mechanism.time_table(["softmax", "xca", "none"], sides=(8, 16, 32), book=book)
times.pivot(index="num_tokens", columns="model", values="latency_ms").round(3)

# %% [markdown]
# Look where the columns of softmax and XCA change places, and compare with the crossing of the arithmetic.
#
# ## One knob: the number of heads
#
# The matrix is $d \times d$ with $d = C/h$. More heads, smaller matrices.
#
# ```{admonition} Predict before you run
# :class: tip
# Softmax's multiply-adds do not depend on the number of heads. Do those of XCA? Which number of heads is cheapest, and
# what is left of the mixing then?
# ```

# %%
def heads(h):
    layer = ATTENTION["xca"](96, h, (8, 8))
    return h, 96 // h, layer.mixing_macs(64), ATTENTION["softmax"](96, h, (8, 8)).mixing_macs(64)

pd.DataFrame([heads(h) for h in (1, 3, 12, 48, 96)], columns=["heads", "channels a head", "XCA (MAC)", "softmax (MAC)"])

# %% [markdown]
# The heads make XCA cheap, and with one channel a head nothing is left to choose. A count for XCA without the number of
# heads is no number: $O(NC^2)$ holds for one head.
#
# ## One brain slice
#
# What does a trained XCA mix? The slice and the two tokens of chapter 03.

# %%
exp = mechanism.experiment("xca", book)
data = mb.load_data(exp.data)
run = mb.fit(mb.build_model(exp.model), data, exp.training)

# %% mystnb={"image": {"alt": "A drawn brain slice with an outlined lesion and two maps over it: what a token in the lesion and its mirror image listen to with XCA; the token itself dominates."}}
batch = mechanism.brain_slice()
matrix, grid = mechanism.mixing_of(run.model, batch.images)
inside, opposite = mechanism.two_tokens(batch, grid)
maps = {"token in the lesion": (matrix, inside), "its mirror image": (matrix, opposite)}
mb.plots.mixing_maps(batch.images[0], maps, grid, batch.lesion[0]);

# %% [markdown]
# Is anything bright outside the ring? A token hears the others only through the $d \times d$ weights. The numbers say it
# for all tokens at once.

# %%
rows = mechanism.mixing_rows(matrix, grid)
mb.results.record("mixing.xca", rows, to=book.results, seed=book.seed)
mechanism.mixing_table(rows, grid)

# %% [markdown]
# Compare the share of its own input with that of the other mechanisms. The effective rank near $N$ comes from it: each
# token is its own pattern, as without mixing. This is why its authors add a *local patch
# interaction*: two small convolutions behind the attention, through which neighbours talk. It is an option here,
# `lpi=True`, and off in the comparison: so `xca` in this pyramid is not the whole XCiT. In the figure of costs it is the
# third line.
#
# ## What it scores

# %% mystnb={"image": {"alt": "Balanced accuracy of all models with 95 percent intervals, XCA highlighted."}}
mb.plots.scores(mechanism.recorded("balanced_accuracy", device=book.device), highlight="xca");

# %% [markdown]
# XCA reaches {value}`10_training:phantom.xca.balanced_accuracy|±`, softmax
# {value}`10_training:phantom.softmax.balanced_accuracy|±`, and the control without mixing
# {value}`10_training:phantom.none.balanced_accuracy|±`. Look at the intervals before you rank them, and at chapter 14.
#
# These images are drawings with known answers; they rank how models learn this drawing and say nothing about patients.
# For research and teaching, not for clinical use.
#
# Where does it fail? Of the first thousand test images, these three it gets wrong with the greatest confidence.

# %% mystnb={"image": {"alt": "Three drawn slices that the XCA model classifies wrongly with great confidence, lesions outlined, true and chosen class above each."}}
names = [mb.phantom.CLASS_NAMES[key] for key in data.classes]
seen = data.test.take(slice(1000))
mb.plots.failures(mb.predict(run.model, seen), seen, names, prior=data.prior);


# %% [markdown]
# Do they have something in common that a sum over all tokens would blur?
#
# ## Exercises
#
# ````{exercise} Write it yourself
# :label: ex-xca-attention
#
# Write `attention(q, k, v, temperature)` from {eq}`eq-xca`, for tensors $(B, h, N, d)$ and a temperature $(h, 1, 1)$.
# Mind the axis of the unit length.
# ````

# %% tags=["skip-execution"]
def attention(q, k, v, temperature):
    ...

check("xca.attention", attention)


# %% [markdown]
# ````{solution} ex-xca-attention
# :class: dropdown
#
# ```python
# def attention(q, k, v, temperature):
#     q, k = q / q.norm(dim=-2, keepdim=True), k / k.norm(dim=-2, keepdim=True)
#     A = (q.mT @ k * temperature).softmax(-1)
#     return v @ A.mT
#
# check("xca.attention", attention)
# ```
# ````
#
# ````{exercise} Every token twice
# :label: ex-xca-duplicates
#
# Give every token twice and look at the outputs of the first copy. For which of the six mechanisms do they stay as they
# were? Answer with a set of names out of `softmax`, `linformer`, `performer`, `fastformer`, `xca` and `window`. (Windows, in
# chapter 08, are built for one grid and have a bias for each distance.)
# ````

# %% tags=["skip-execution"]
answer = {...}
check("xca.duplicates", answer)

# %% [markdown]
# ````{solution} ex-xca-duplicates
# :class: dropdown
#
# Softmax, Performer and Fastformer take weighted means, and a mean does not count. XCA takes cosines, and a cosine does
# not count either. Linformer and windows are built for one grid.
#
# ```python
# check("xca.duplicates", {"softmax", "performer", "fastformer", "xca"})
# ```
# ````
#
# **An open question.** Channels are compared over *all* tokens. What would XCA compute if it compared them within windows?
# What would it cost, and what would it know of places?
#
# ## Quiz
#
# ```{dropdown} 1. What is the shape of XCA's attention matrix for 1,024 tokens, 96 channels and 3 heads?
# Three matrices of 32 x 32, whatever the number of tokens.
# ```
#
# ```{dropdown} 2. Over which axis have the columns unit length?
# Over the tokens: each channel is one vector with an entry per token.
# ```
#
# ```{dropdown} 3. Can a trained XCA run on another image size?
# Yes. No weight of it has a size that depends on N.
# ```
#
# ```{dropdown} 4. Where in the pyramid is XCA's mixing dearer than that of softmax?
# Where $N < d$: with 32 channels a head, in the last stage, with its 16 tokens at 224 px in the large preset.
# ```
#
# **Three misconceptions**
#
# - *"XCA is softmax attention with a trick."* Its matrix holds cosines between channels. No token is compared with another.
# - *"It mixes tokens as softmax does, for less."* Look at the first picture: tokens meet only through the weights.
# - *"The temperature divides."* In the paper it does, in the code it multiplies. A learned number can be either, but weights
#   are exchanged by the code's convention.
#
# ## Where the study and its code differ from the paper
#
# - The study {cite}`study2022` writes norms around $q$ and $k$ without saying over which axis. It is over the tokens.
# - Its code has no unit length, no temperature and no local interaction; it scales by $N^{-1/2}$. `setting="seed"` does
#   the same, and chapter 02 reproduces its {value}`study-2022/11_cost:cost.xca.macs_fvcore|.2f G` with 1,000 classes.
# - It says XCiT and counts XCA: the local interaction would add parameters that its table does not have.
#
# What does the missing unit length change? Make one channel of the queries louder once more.

# %%
study = ATTENTION["xca"](C, h, grid, setting="seed").double().eval()
study.load_state_dict({n: p for n, p in ours.state_dict().items() if n != "temperature"}, strict=True)
q, k, v = study.heads(x)
for name, layer in {"faithful": ours, "seed": study}.items():
    moved = (layer.mix(louder, k, v) - layer.mix(q, k, v)).abs().max() / layer.mix(q, k, v).abs().max()
    print(f"{name}: one channel ten times louder moves the output by {moved.item():.0e} of its largest value")

# %% [markdown]
# Without the unit length a loud channel changes the weights. The authors of XCA introduced it to keep training stable.
#
# ## Further reading
#
# - {cite}`elnouby2021xcit`, sections 3.2 and 3.3: the equation, the temperature, and the local interaction.
# - {cite}`touvron2021deit`: the training recipe that XCiT builds on.
# - {cite}`tay2022survey`: other ways to avoid the matrix of tokens.
