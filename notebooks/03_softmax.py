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
# # Softmax attention
#
# ```{admonition} In this chapter
# :class: note
# **You will learn** to write softmax attention from its equation, to check an implementation against a reference, to
# count what it costs, and to read what a trained layer mixes on a brain slice.
# **You need** matrix products, the exponential, and chapter 02 for the words token, head and pyramid.
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

book = start("03_softmax", globals())

# %% [markdown]
# ## The question
#
# Must every token look at every other one?
#
# A brain slice is cut into a grid of tokens. Softmax attention {cite}`vaswani2017` lets each token look at all of them.
# That is generous, and it is what the other mechanisms of this book try to save.
#
# ```{admonition} Predict before you run
# :class: tip
# The image side doubles from 112 to 224 pixels, so there are four times as many tokens.
# By which factor does the arithmetic of *mixing* grow: 2, 4 or 16? And that of the *whole model*: more or less than that?
# Write both numbers down. The cost section below answers.
# ```
#
# ## The idea in one picture
#
# Take a tiny grid of 6 x 6 tokens with random content. Which output depends on which input?
# We ask the layer itself: entry $(i, j)$ of the picture is $\lVert \partial y_i / \partial x_j \rVert$, how much output
# token $i$ moves when input token $j$ moves. Every chapter draws its mechanism by this one definition.
# On the left is softmax attention, on the right the control `none`, which mixes nothing.

# %% mystnb={"image": {"alt": "Two 36 by 36 pictures. Softmax: every cell is filled, the diagonal a little brighter. None: only the diagonal is filled."}}
torch.manual_seed(book.seed)
x = torch.randn(1, 36, 32)
_, axes = mb.plots.figure(columns=2, width=7, height=3.3)
for ax, name in zip(axes, ("softmax", "none")):
    mixing = mb.mixing.matrix(ATTENTION[name](32, 1, (6, 6)).eval(), x)
    mb.plots.who_mixes(mixing, ax, title=name, bar=r"$\|\partial y_i/\partial x_j\|$ (1)")

# %% [markdown]
# Left, every cell is filled: all 36 tokens talk to all 36. The diagonal is brighter, because a token's own input also sets
# its query. Right, only the diagonal is filled: each token hears itself alone.
# The other mechanisms lie between the two, or reach the left picture by a cheaper road.
#
# ## The equation
#
# $$
# \mathrm{softmax}\!\left(\frac{QK^\top}{\sqrt d}\right) V
# $$ (eq-softmax)
#
# Each token asks with a query, offers a key and carries a value. The product $QK^\top$ compares every query with every
# key. The softmax turns each row of it into weights that are positive and sum to one. Each output is the weighted mean of
# the values. The factor $1/\sqrt d$ keeps the comparisons of order one, however many channels a head has.
#
# ```{margin}
# **Shapes**, one image and one head:
# $Q, K, V$: $N \times d$;
# $QK^\top$: $N \times N$;
# output: $N \times d$.
# With $h$ heads, $C = hd$.
# ```
#
# This is the code that the book runs, live from the package, with the same letters:
#
# ```{literalinclude} ../../medbench/attention/softmax.py
# :language: python
# :pyobject: Softmax.mix
# :dedent: 4
# ```
#
# What it calls is shared with the mechanisms that have a softmax too:
#
# ```{literalinclude} ../../medbench/attention/base.py
# :language: python
# :pyobject: attend
# ```
#
# `F.scaled_dot_product_attention` is PyTorch's name for equation {eq}`eq-softmax`, in one fused call that need not keep
# the $N \times N$ matrix {cite}`dao2022flashattention`. The branch before it is the same equation spelt out, for the
# cases in which fusing is slower. Around it stand two linear maps, the same for every mechanism:
#
# ```{literalinclude} ../../medbench/attention/base.py
# :language: python
# :pyobject: Attention.forward
# :dedent: 4
# ```
#
# ## The check
#
# Is this softmax attention, or something close to it? We copy the weights of timm's own layer
# {cite}`wightman2019timm` into ours. `strict=True` refuses any name or shape that does not fit.
# Then both see the same tokens, in float64, where rounding cannot hide a mistake.

# %%
import timm

C, h, grid = 96, 3, (7, 5)
timms = timm.layers.Attention(C, num_heads=h, qkv_bias=True).double().eval()
ours = ATTENTION["softmax"](C, h, grid).double().eval()
ours.load_state_dict(timms.state_dict(), strict=True)
x = torch.randn(2, 35, C, dtype=torch.float64)
difference = (ours(x) - timms(x)).abs().max().item()
print(f"largest difference: {difference:.1e}")

# %% [markdown]
# The difference is rounding and nothing else. And the fused call? Is it the same as the equation, spelt out?

# %%
q, k, v = ours.heads(x)
spelt_out = (q @ k.mT / (C // h) ** 0.5).softmax(-1) @ v
difference = (ours.mix(q, k, v) - spelt_out).abs().max().item()
print(f"largest difference: {difference:.1e}")

# %% [markdown]
# Fusing changes where numbers are kept, not what they are.
#
# ## The limits
#
# ```{admonition} Predict before you run
# :class: tip
# 1. Shuffle the tokens. Are the outputs shuffled alike?
# 2. Give every token twice. Do the outputs change?
# 3. Change one token. How many outputs move?
# ```

# %%
mb.mixing.limits(ours, x)

# %% [markdown]
# Shuffled tokens give shuffled outputs. So this layer knows nothing of *where* a token is: the position encoding of
# chapter 02 has to tell it. A token given twice counts twice in the numerator and in the normaliser, so nothing changes:
# the layer sees which tokens there are, not how many. And one changed token moves every output.
#
# ## The cost
#
# Each of the $N$ queries meets each of the $N$ keys in $C$ channels, and each of the $N^2$ weights is used on $C$
# channels of values. That is $N^2C$ multiply-adds twice:
#
# $$
# \text{mixing} = 2N^2C, \qquad \text{projections} = 4NC^2, \qquad \text{MLP} = 8NC^2 .
# $$ (eq-softmax-cost)
#
# Does counting agree with the formula? torch counts the products of the layer for grids from 4 x 4 to 64 x 64 tokens,
# and we draw the rest of the block beside it.

# %% mystnb={"image": {"alt": "Multiply-adds against number of tokens on logarithmic axes. The softmax line rises with slope two through its counted markers and crosses the line of projections and MLP, slope one, at 576 tokens."}}
costs = mechanism.cost_table(["softmax"], sides=(4, 8, 16, 32, 64))
others = 12 * costs.num_tokens * 96**2
rest = costs.assign(model="projections and MLP", closed_form=others, counted=None)
mb.plots.cost_curves(pd.concat([costs, rest]), highlight="softmax")
print("counted = closed form:", (costs.counted == costs.closed_form).all())

# %% [markdown]
# Counted and computed agree to the last multiply-add. The line of mixing is twice as steep as the other one.
# So a doubled image side, four times the tokens, costs sixteen times the mixing and four times the rest:
# the whole grows by something in between. Below the crossing, mixing is the smaller part of the block, and no mechanism,
# however clever, can save more than that part. The second exercise asks where the crossing is.
#
# Arithmetic is not time. How long does it take on this device? We time the layer beside `none`, which has half of the
# projections and no mixing. So the gap is the mixing and the projections to queries and keys.

# %%
times = mechanism.time_table(["softmax", "none"], (4, 8, 16, 32), book)
times[["model", "num_tokens", "latency_ms", "verdict"]].round(3)

# %% mystnb={"image": {"alt": "Median time of one layer against the number of tokens, logarithmic axes, softmax above none; the gap widens with the number of tokens."}}
mb.plots.curves(times, "num_tokens", "latency_ms", log=True,
                highlight="softmax");

# %% [markdown]
# At few tokens both take the time of starting a few operations, and the arithmetic hardly shows. Only to the right does
# the quadratic term take over. Chapter 12 times whole models by a stricter protocol.
#
# ## One knob: how sharp
#
# Multiply the queries by a factor $s$. What should happen to the mixing?
#
# ```{admonition} Predict before you run
# :class: tip
# At $s = 0$ all comparisons are equal. How many different patterns of mixing are left? And for very large $s$?
# ```
#
# Here the weights themselves can be looked at: $A = \mathrm{softmax}(s\,QK^\top/\sqrt d)$. We take two numbers of it.
# How many tokens does a query listen to, $\exp$ of the entropy of its weights? And how many different patterns are there
# among the rows, the *effective rank* {cite}`roy2007`, $\exp$ of the entropy of the singular values, scaled to sum to one:
# 1 when all queries listen alike, at most $N$?

# %%
layer = ATTENTION["softmax"](32, 1, (6, 6))
q, k, _ = layer.heads(3 * torch.randn(1, 36, 32))

def spread(s):
    A = (s * q @ k.mT / 32**0.5).softmax(-1)[0, 0].detach()
    listened = torch.special.entr(A).sum(-1).exp().mean().item()
    return s, listened, mb.mixing.effective_rank(A)

table = [spread(s) for s in (0, 0.3, 1, 3, 10, 100)]
columns = ["factor s", "tokens listened to (of 36)", "effective rank (of 36)"]
pd.DataFrame(table, columns=columns).round(1)

# %% [markdown]
# At $s = 0$ every query takes the same mean of all 36 tokens: one pattern. With a growing factor each query listens to
# fewer tokens, in the end to one, and one pattern becomes several. Their number need not keep growing: when each query
# picks one key, several pick the same one and share a pattern. Linformer, in the next chapter, bets that few are enough.
#
# ## One brain slice
#
# Now a model that has learned. We load the run that chapter 10 trained; if there is none yet, it is trained here.

# %%
exp = mechanism.experiment("softmax", book)
data = mb.load_data(exp.data)
run = mb.fit(mb.build_model(exp.model), data, exp.training)

# %% [markdown]
# The same slice is shown in every mechanism chapter: a drawn intra-axial lesion, outlined. Two tokens are asked what they
# listen to, in the second block of the first stage: one in the lesion, and its mirror image in the healthy half.

# %% mystnb={"image": {"alt": "A drawn brain slice with an outlined lesion and two maps over it: what a token in the lesion and its mirror image in the healthy half listen to with softmax attention."}}
batch = mechanism.brain_slice(exp.data.img_size)
matrix, grid = mechanism.mixing_of(run.model, batch.images)
inside, opposite = mechanism.two_tokens(batch, grid)
maps = {"token in the lesion": (matrix, inside),
        "its mirror image": (matrix, opposite)}
mb.plots.mixing_maps(batch.images[0], maps, grid, batch.lesion[0]);

# %% [markdown]
# Bright cells are those that the ringed token listens to. Are they near the ring, or where the tissue looks alike?
# Three numbers sum the whole matrix up. The lower rows are the two extremes: plain averaging, and no mixing.

# %%
rows = mechanism.mixing_rows(matrix, grid)
mb.results.record("mixing.softmax", rows, to=book.results, seed=book.seed)
mechanism.mixing_table(rows, grid)

# %% [markdown]
# The mean distance says how far a token listens, the second column how much of its own input stays, and the effective rank
# how many patterns there are. Compare them with the same table in the next chapters.
#
# ## What it scores
#
# How well does the model with this mechanism tell ten drawn findings apart? Chapter 10 trained all models alike and
# recorded their scores with 95 % intervals.

# %% mystnb={"image": {"alt": "Balanced accuracy of all models with 95 percent intervals, softmax highlighted."}}
scores = mechanism.recorded("balanced_accuracy", device=book.device)
mb.plots.scores(scores, highlight="softmax");

# %% [markdown]
# Softmax attention reaches {value}`10_training:phantom.softmax.balanced_accuracy|±`, the control without mixing
# {value}`10_training:phantom.none.balanced_accuracy|±`. The gap between these two is what looking around is worth here.
# Intervals that overlap widely are no ranking; chapter 14 gives the verdicts.
#
# These images are drawings with known answers; they rank how models learn this drawing and say nothing about patients.
# For research and teaching, not for clinical use.
#
# Where does it fail? Of the first thousand test images, these three it gets wrong with the greatest confidence.

# %% mystnb={"image": {"alt": "Three drawn slices that the softmax model classifies wrongly with great confidence, lesions outlined, true and chosen class above each."}}
names = [mb.phantom.CLASS_NAMES[key] for key in data.classes]
seen = data.test.take(slice(1000))
mb.plots.failures(mb.predict(run.model, seen), seen, names, prior=data.prior);


# %% [markdown]
# Ask of each: would you have made the same mistake? A confident error tells more about a model than its mean score.
#
# ## Exercises
#
# ````{exercise} Attention without the matrix
# :label: ex-softmax-streaming
#
# Write `streaming(q, k, v, block)` that returns {eq}`eq-softmax` but reads the keys a block at a time and never holds an
# $N \times N$ tensor. Tensors are $(B, h, N, d)$, and `block` need not divide $N$.
# Keep three running values per query: the largest comparison so far, the sum of weights, and the weighted sum of values.
# When a new block raises the maximum, what has been summed must be scaled down. This is the idea behind fused attention
# {cite}`milakov2018,rabe2021,dao2022flashattention`.
# ````

# %% tags=["skip-execution"]
def streaming(q, k, v, block):
    ...

check("softmax.streaming", streaming)


# %% [markdown]
# ````{solution} ex-softmax-streaming
# :class: dropdown
#
# ```python
# def streaming(q, k, v, block):
#     q = q / q.shape[-1] ** 0.5
#     top = torch.full_like(q[..., :1], -float("inf"))
#     total, out = torch.zeros_like(top), torch.zeros_like(q)
#     for k_b, v_b in zip(k.split(block, dim=-2), v.split(block, dim=-2)):
#         logits = q @ k_b.mT
#         new = torch.maximum(top, logits.amax(-1, keepdim=True))
#         weights, shrink = torch.exp(logits - new), torch.exp(top - new)
#         total = total * shrink + weights.sum(-1, keepdim=True)
#         out = out * shrink + weights @ v_b
#         top = new
#     return out / total
#
# check("softmax.streaming", streaming)
# ```
# ````
#
# ````{exercise} When mixing outgrows the rest
# :label: ex-softmax-crossover
#
# At which number of tokens does mixing cost as many multiply-adds as the projections and the MLP of a block together?
# Derive it from {eq}`eq-softmax-cost` and write it as a function of the channels $C$.
# ````

# %% tags=["skip-execution"]
def crossover_tokens(C):
    ...

check("softmax.crossover_tokens", crossover_tokens)

# %% [markdown]
# ````{solution} ex-softmax-crossover
# :class: dropdown
#
# $2N^2C = 4NC^2 + 8NC^2$. Divide by $2NC$: $N = 6C$. With 96 channels that is 576 tokens, a grid of 24 x 24.
# In the large preset at 224 px only the first stage, with 1,024 tokens, lies beyond it.
#
# ```python
# def crossover_tokens(C):
#     return 6 * C
#
# check("softmax.crossover_tokens", crossover_tokens)
# ```
# ````
#
# **An open question.** The picture of mixing above has one number per pair of tokens. A head mixes channels too.
# How would you draw which *channels* travel, and would two mechanisms with the same picture still differ?
#
# ## Quiz
#
# ```{dropdown} 1. The image side doubles. By which factor does the mixing of softmax attention grow?
# Sixteen: four times the tokens, squared.
# ```
#
# ```{dropdown} 2. Twice as many heads, the same number of channels. What happens to the multiply-adds of mixing?
# Nothing: $2N^2C$ does not contain the number of heads. There are twice as many matrices of half the depth each.
# The memory of the matrices, if they are kept, doubles.
# ```
#
# ```{dropdown} 3. Without a position encoding, can softmax attention tell a slice from the same slice with shuffled tokens?
# The layer cannot: shuffled tokens give shuffled outputs. A mean at the end of a stack of layers then removes the order. The
# pyramid can, for its merges join neighbours.
# ```
#
# ```{dropdown} 4. A mechanism makes mixing free. What is the most it can save in a block with 64 tokens and 384 channels?
# Mixing is $2N^2C$ of $2N^2C + 12NC^2$ multiply-adds, that is $N/(N + 6C)$: here $64/2368$, less than three in a hundred.
# ```
#
# **Three misconceptions**
#
# - *"Attention weights say what the model finds important."* They say where values are taken from, in one layer and one
#   head. What the output depends on also passes through $q$, $k$, the residual stream and the layers above
#   {cite}`jain2019`. That is why this book measures the Jacobian.
# - *"Attention is the expensive part of a transformer."* Only beyond $N = 6C$. In the pyramid of this book at 224 px most
#   of the arithmetic lies in projections and MLPs.
# - *"Fused attention is an approximation."* It computes the same function in another order; the check above shows it.
#
# ## Where the study and its code differ from the paper
#
# - The study {cite}`study2022` calls this model a Vision Transformer {cite}`dosovitskiy2021`. It is the pyramid of
#   {cite}`fair2022` with softmax attention: four stages, a mean over the tokens at the end, no class token.
#   A whole ViT keeps one resolution throughout.
# - Its table counts multiply-adds and calls them FLOPS. One multiply-add is two floating-point operations.
#   The study's figure for this model is {value}`study-2022/11_cost:cost.softmax.macs_fvcore|.2f G`.
# - The parameters in its table belong to a classifier with 1,000 classes. Chapter 02 reproduces them.
# - The two settings of this mechanism, `faithful` and `seed`, compute the same thing: there was nothing to repair.
# - A trap for whoever counts: on a CPU some counters see fused attention as nothing at all, which makes softmax the
#   cheapest model of the table. Chapter 11 shows the trap and the way round it.
#
# ## Further reading
#
# - {cite}`vaswani2017`, section 3.2: the equation, the heads, and the reason for $1/\sqrt d$.
# - {cite}`dosovitskiy2021`: images as tokens, without convolutions.
# - {cite}`dao2022flashattention`: the same function with less traffic to memory, by the idea of the first exercise.
# - {cite}`raghu2021`: how far trained vision transformers look, layer by layer.
# - {cite}`fair2022`: the pyramid of this book and its comparison of efficient attentions.
