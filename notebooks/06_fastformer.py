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
# # Fastformer
#
# ```{admonition} In this chapter
# :class: note
# **You will learn** to mix tokens through one global vector, to see what can travel through such a needle's eye and what
# cannot, and to repair a common mistake in its code.
# **You need** chapter 03.
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

book = start("06_fastformer", globals())

# %% [markdown]
# ## The question
#
# Must tokens be compared in pairs at all?
#
# Softmax compares each query with each key. Fastformer {cite}`wu2021fastformer` compares nothing. It sums all queries up
# in one vector, all keys in another, and tells every token these sums.
#
# ```{admonition} Predict before you run
# :class: tip
# 1. Four times as many tokens: by which factor does the arithmetic of mixing grow?
# 2. Which part of another token can reach me: its query, its key, its value?
# ```
#
# ## The idea in one picture
#
# Again 36 random tokens. Weights and inputs are scaled up, so that the structure can be seen. On the right the two pooling
# vectors are ten times longer still, as training may make them.

# %% mystnb={"image": {"alt": "Two 36 by 36 mixing pictures on a logarithmic scale, both made of columns with a diagonal across them. On the right the columns differ far more."}}
torch.manual_seed(book.seed)
layer = ATTENTION["fastformer"](32, 1, (6, 6)).eval()
x = 3 * torch.randn(1, 36, 32)
with torch.no_grad():
    for weight in layer.parameters():
        weight.mul_(10 if weight is layer.w_q or weight is layer.w_k else 5)
_, axes = mb.plots.figure(columns=2, width=7.5, height=3.3)
for ax, factor in zip(axes, (1, 10)):
    layer.w_q.data, layer.w_k.data = factor * layer.w_q.data, factor * layer.w_k.data
    mixing = mb.mixing.matrix(layer, x).log10()
    mb.plots.who_mixes(mixing - mixing.min(), ax, title=f"pooling vectors x {factor}", bar="decades above the least (1)")

# %% [markdown]
# The scale counts powers of ten. Each token hears itself: the diagonal. It hears all others through one vector that is the
# same for all. So the rest is made of columns: what is loud is loud for everyone. With longer pooling vectors the columns
# lie many more powers of ten apart: a few tokens are picked.
#
# ## The equation
#
# $$
# \alpha = \mathrm{softmax}_N\!\left(\frac{w_q^\top q}{\sqrt d}\right), \quad \bar q = \sum_i \alpha_i q_i, \qquad
# p_i = k_i * \bar q, \qquad
# \beta = \mathrm{softmax}_N\!\left(\frac{w_k^\top p}{\sqrt d}\right), \quad \bar k = \sum_i \beta_i p_i,
# $$
#
# $$
# \mathrm{out}_i = T(\bar k * v_i) + q_i
# $$ (eq-fastformer)
#
# with $*$ element by element. There are two poolings, one after the other: the global query $\bar q$ colours every key,
# and the coloured keys are pooled again.
#
# ```{margin}
# **Shapes**, one image and one head:
# $q, k, p, v$: $N \times d$;
# $\alpha, \beta$: $N$ weights;
# $\bar q, \bar k$: $d$;
# $T$: $d \times d$.
# ```
#
# ```{literalinclude} ../../medbench/attention/fastformer.py
# :language: python
# :pyobject: Fastformer.mix
# :dedent: 4
# ```
#
# ```{literalinclude} ../../medbench/attention/fastformer.py
# :language: python
# :pyobject: Fastformer.weights
# :dedent: 4
# ```
#
# ## The check
#
# The package that is easiest to find pools other vectors than the paper (the first exercise shows which). So it cannot
# be our reference. We write the paper's equations as a loop, one token at a time, and compare in float64.

# %%
layer = ATTENTION["fastformer"](12, 3, (7, 5)).double().eval()
torch.nn.init.normal_(layer.w_q), torch.nn.init.normal_(layer.w_k)
q, k, v = layer.heads(torch.randn(1, 35, 12, dtype=torch.float64))

def pool(scored, w):
    weights = torch.stack([torch.exp(w @ row / 4**0.5) for row in scored])
    return sum(a * row for a, row in zip(weights / weights.sum(), scored))

# %%
slow = torch.empty_like(q)
for head in range(3):
    Q, K, V = q[0, head], k[0, head], v[0, head]
    q_bar = pool(Q, layer.w_q[head])
    k_bar = pool(torch.stack([key * q_bar for key in K]), layer.w_k[head])
    slow[0, head] = torch.stack([layer.transform(k_bar * value) + query for value, query in zip(V, Q)])
print(f"largest difference: {(layer.mix(q, k, v) - slow).abs().max().item():.1e}")

# %% [markdown]
# The fast code and the slow loop agree to rounding.
#
# ## The limits
#
# ```{admonition} Predict before you run
# :class: tip
# 1. Shuffle the tokens. Are the outputs shuffled alike?
# 2. Give every token twice. Do the outputs change?
# 3. Is there a setting of its weights in which Fastformer becomes softmax attention?
# ```

# %%
x = torch.randn(2, 35, 12, dtype=torch.float64)
mb.mixing.limits(layer, x)

# %% [markdown]
# Shuffled and doubled tokens behave as in softmax: both poolings are weighted means over all tokens. But the answer to
# the third question is no. Two queries of softmax can listen to different tokens. Here everybody gets the same $\bar k$,
# whatever the weights. Fastformer has no road back to softmax; chapter 07 has another mechanism without one.
#
# ## The cost
#
# Two logits and two weighted sums take $NC$ each, the transform $NCd$:
#
# $$
# \text{mixing} = 4NC + NCd .
# $$ (eq-fastformer-cost)

# %% mystnb={"image": {"alt": "Multiply-adds of mixing against tokens, logarithmic axes: softmax with slope two, Fastformer and the study's Fastformer with slope one far below it."}}
variants = {"softmax": ("softmax", {}), "fastformer": ("fastformer", {}),
            "without transform (the study)": ("fastformer", {"setting": "seed"})}
costs = mechanism.cost_table(variants, sides=(4, 8, 16, 32, 64))
mb.plots.cost_curves(costs, highlight="fastformer")
print("counted = closed form:", (costs.counted == costs.closed_form).all())

# %% [markdown]
# Four times the tokens, four times the mixing: a line of slope one. Most of it is the transform. The study's variant has
# none and is the cheapest mixing of all, a few products a token. Is it also quick?

# %%
times = mechanism.time_table(["softmax", "fastformer", "none"], sides=(8, 16, 32), book=book)
times.pivot(index="num_tokens", columns="model", values="latency_ms").round(3)

# %% [markdown]
# Compare the columns at few tokens. Fastformer is made of many small steps, and each has to be started and has to read and
# write all tokens once. Cheap in multiply-adds is not the same as quick.
#
# ## One knob: how long the pooling vectors are
#
# $\alpha$ is a softmax over tokens. With $w_q = 0$ it is the plain mean. Multiply $w_q$ and $w_k$ by a factor $s$.
#
# ```{admonition} Predict before you run
# :class: tip
# How many tokens does the pooling listen to at $s = 0$, and at very large $s$? Does the layer then choose *per query*?
# ```

# %%
def listened(s):
    weights = layer.weights(q, s * layer.w_q)
    return s, torch.special.entr(weights).sum(-1).exp().mean().item()

pd.DataFrame([listened(s) for s in (0, 0.3, 1, 3, 10, 100)], columns=["factor s", "tokens listened to (of 35)"]).round(1)

# %% [markdown]
# From the mean of all tokens down to a single one. But it is one choice for the whole image and head. Softmax makes such a
# choice for every query.
#
# ## One brain slice
#
# What does a trained Fastformer mix? The slice and the two tokens of chapter 03.

# %%
exp = mechanism.experiment("fastformer", book)
data = mb.load_data(exp.data)
run = mb.fit(mb.build_model(exp.model), data, exp.training)

# %% mystnb={"image": {"alt": "A drawn brain slice with an outlined lesion and two maps over it: what a token in the lesion and its mirror image listen to with Fastformer; apart from the token itself the two maps are much alike."}}
batch = mechanism.brain_slice()
matrix, grid = mechanism.mixing_of(run.model, batch.images)
inside, opposite = mechanism.two_tokens(batch, grid)
maps = {"token in the lesion": (matrix, inside), "its mirror image": (matrix, opposite)}
mb.plots.mixing_maps(batch.images[0], maps, grid, batch.lesion[0]);

# %% [markdown]
# Cover the ring in each map. What is left should look much the same in both: the tokens that the pooling picked. Only how
# strongly a token answers to it differs.

# %%
rows = mechanism.mixing_rows(matrix, grid)
mb.results.record("mixing.fastformer", rows, to=book.results, seed=book.seed)
mechanism.mixing_table(rows, grid)

# %% [markdown]
# Compare the share of its own input with that of softmax in chapter 03. The residual $+\,q_i$ inside the mechanism keeps
# it high. The effective rank near $N$ comes from the same residual: each token is its own pattern, as without mixing. It
# does not mean many ways of listening.
#
# ## What it scores

# %% mystnb={"image": {"alt": "Balanced accuracy of all models with 95 percent intervals, Fastformer highlighted."}}
mb.plots.scores(mechanism.recorded("balanced_accuracy", device=book.device), highlight="fastformer");

# %% [markdown]
# Fastformer reaches {value}`10_training:phantom.fastformer.balanced_accuracy|±`, softmax
# {value}`10_training:phantom.softmax.balanced_accuracy|±`, and the control without mixing
# {value}`10_training:phantom.none.balanced_accuracy|±`. In the study it is the best of all. Before you agree or
# disagree, look at the intervals, and at chapter 14.
#
# These images are drawings with known answers; they rank how models learn this drawing and say nothing about patients.
# For research and teaching, not for clinical use.
#
# Where does it fail? Of the first thousand test images, these three it gets wrong with the greatest confidence.

# %% mystnb={"image": {"alt": "Three drawn slices that the Fastformer model classifies wrongly with great confidence, lesions outlined, true and chosen class above each."}}
names = [mb.phantom.CLASS_NAMES[key] for key in data.classes]
seen = data.test.take(slice(1000))
mb.plots.failures(mb.predict(run.model, seen), seen, names, prior=data.prior);


# %% [markdown]
# Are these failures a matter of comparing places, left with right, or of seeing one spot well? The first is what one
# global vector makes hard.
#
# ## Exercises
#
# ````{exercise} Repair the pooling
# :label: ex-fastformer-pooling
#
# This code pools raw keys, a mistake that is in circulation. Repair it so that it equals {eq}`eq-fastformer`.
# Tensors are $(B, h, N, d)$, `w_q` and `w_k` are $(h, d)$, `transform` maps the last axis.
# ````

# %% tags=["skip-execution"]
def attention(q, k, v, w_q, w_k, transform):
    d = q.shape[-1]
    alpha = (q @ w_q[..., None] / d**0.5).softmax(-2)
    q_bar = (alpha * q).sum(-2, keepdim=True)
    beta = (k * q_bar @ w_k[..., None] / d**0.5).softmax(-2)
    k_bar = (beta * k).sum(-2, keepdim=True)
    return transform(k_bar * v) + q

check("fastformer.attention", attention)


# %% [markdown]
# ````{solution} ex-fastformer-pooling
# :class: dropdown
#
# $\bar k = \sum_i \beta_i p_i$ with $p_i = k_i * \bar q$. With raw keys the global query colours the weights alone and is
# lost for what they weigh.
#
# ```python
# def attention(q, k, v, w_q, w_k, transform):
#     d = q.shape[-1]
#     alpha = (q @ w_q[..., None] / d**0.5).softmax(-2)
#     p = k * (alpha * q).sum(-2, keepdim=True)
#     beta = (p @ w_k[..., None] / d**0.5).softmax(-2)
#     k_bar = (beta * p).sum(-2, keepdim=True)
#     return transform(k_bar * v) + q
#
# check("fastformer.attention", attention)
# ```
# ````
#
# ````{exercise} Who hears a value?
# :label: ex-fastformer-values
#
# Hold all queries and keys fixed and change one value $v_j$. Which outputs move? Write `value_pattern(N)` that returns an
# $N \times N$ tensor of booleans: true at $(i, j)$ where output $i$ depends on $v_j$.
# ````

# %% tags=["skip-execution"]
def value_pattern(N):
    ...

check("fastformer.value_pattern", value_pattern)

# %% [markdown]
# ````{solution} ex-fastformer-values
# :class: dropdown
#
# $\bar k$ is made of queries and keys alone, and $\bar k * v_i$ uses the token's own value. So values never travel.
# In softmax attention it is the other way round: values are what travels.
#
# ```python
# def value_pattern(N):
#     return torch.eye(N).bool()
#
# check("fastformer.value_pattern", value_pattern)
# ```
# ````
#
# **An open question.** One global vector for each head. How many heads would a lesion on one side and its absence on the
# other need? Could two layers do what one cannot?
#
# ## Quiz
#
# ```{dropdown} 1. How many numbers can a head pass from all tokens to one token?
# $d$, those of $\bar k$; the same ones to every token.
# ```
#
# ```{dropdown} 2. What does Fastformer do if w_q and w_k are zero?
# Both poolings are plain means: every token is told the mean query times the mean key.
# ```
#
# ```{dropdown} 3. Does the order of the tokens matter to it?
# No. Like softmax it needs a position encoding.
# ```
#
# ```{dropdown} 4. Can it run on an image of another size with the same weights?
# Yes. Nothing in it has a size that depends on N.
# ```
#
# **Three misconceptions**
#
# - *"It is softmax attention, approximated."* It approximates nothing. It is another function.
# - *"O(NC) means a Fastformer model is linear in C."* Projections and MLPs remain, and they are $O(NC^2)$.
# - *"Global means that every token sees every other."* Every token sees one sum.
#
# ## Where the study and its code differ from the paper
#
# - The study {cite}`study2022` writes $q + [k_0 * v]W$ and leaves $k_0$ undefined. The paper's equations 3 to 7 define it.
# - Its code pools raw keys, has no transform of its own, and adds the query after the output projection.
#   `setting="seed"` does the same; chapter 02 reproduces its counts, among them
#   {value}`study-2022/11_cost:cost.fastformer.macs_fvcore|.2f G` with 1,000 classes.
# - The authors' own code has $v = q$, one linear map from all channels to the logits, and a transform over all channels.
#   Values of their own, one pooling vector a head and a transform within the head are our choices.
# - On ImageNet the paper whose pyramid the study took over ranks it last of all
#   ({value}`study-2022/10_training:imagenet.fastformer.top1|.1%` against
#   {value}`study-2022/10_training:imagenet.softmax.top1|.1%` for softmax) {cite}`fair2022`; the study ranks it first.
#   A ranking belongs to its data.
#
# What does raw pooling change in a layer? Same weights, same tokens, the two ways of pooling.

# %%
p = k * (layer.weights(q, layer.w_q) @ q)
beta = layer.weights(p, layer.w_k)
coloured, raw = beta @ p, beta @ k
print(f"cosine of the two global keys, mean over heads: {torch.cosine_similarity(coloured, raw, dim=-1).mean().item():.2f}")

# %% [markdown]
# A cosine of one would mean that the mistake changes nothing. In so few dimensions the number itself depends much on the
# draw.
#
# ## Further reading
#
# - {cite}`wu2021fastformer`, section 3: the equations, and the experiments on text for which it was made.
# - {cite}`yu2022metaformer`: replace attention by pooling, and the transformer around it still works.
# - {cite}`tay2022survey`: where it stands among the efficient transformers.
