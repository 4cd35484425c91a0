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
# # Linformer
#
# ```{admonition} In this chapter
# :class: note
# **You will learn** to shorten keys and values along the tokens, to see when that equals softmax and when it costs more,
# and to ask whether trained attention is of low rank at all.
# **You need** chapter 03, and from linear algebra the rank and the singular values of a matrix.
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

book = start("04_linformer", globals())

# %% [markdown]
# ## The question
#
# Do we need $N$ keys, if $r$ mixtures of them do?
#
# Softmax attention compares each query with all keys. If the rows of its matrix are nearly combinations of a few patterns,
# most comparisons are wasted. Linformer {cite}`wang2020linformer` learns $r$ mixtures of keys and of values and compares
# with those.
#
# ```{admonition} Predict before you run
# :class: tip
# 1. Halve $r$. Does the arithmetic of mixing halve? Does the *time* halve?
# 2. With $r = 128$: is Linformer cheaper than softmax at 64 tokens? At 256? At 1,024?
# ```
#
# ## The idea in one picture
#
# Who talks to whom now? We draw the mixing of Linformer with $r = 4$ on a grid of 6 x 6 random tokens, and beside it the
# projection $E$ that makes four keys out of 36.

# %% mystnb={"image": {"alt": "Left, a 36 by 36 mixing picture: every cell filled, in vertical stripes. Right, the projection E: four rows of 36 weights without a pattern."}}
torch.manual_seed(book.seed)
layer = ATTENTION["linformer"](32, 1, (6, 6), r=4).eval()
mixing = mb.mixing.matrix(layer, torch.randn(1, 36, 32))
_, (left, right) = mb.plots.figure(columns=2, width=7.5, height=3.3)
norm = r"$\|\partial y_i/\partial x_j\|$ (1)"
mb.plots.who_mixes(mixing, left, title="Linformer, r = 4", bar=norm)
weights = layer.E.detach().abs()
mb.plots.who_mixes(weights, right, title="the weights $|E|$", bar="weight (1)")
right.set_ylabel("summary key");

# %% [markdown]
# Every cell is still filled: each output hears every token. But it hears them through four summaries, so the left picture
# is made of few patterns: a column that is bright in one row is bright in most. (On the diagonal a token also hears
# itself through its own query.) What is saved is not the reach,
# but the freedom of each query to choose.
#
# ## The equation
#
# $$
# K' = EK, \qquad V' = FV, \qquad \mathrm{softmax}\!\left(\frac{QK'^\top}{\sqrt d}\right) V'
# $$ (eq-linformer)
#
# with learned $E, F \in \mathbb R^{r \times N}$.
#
# ```{margin}
# **Shapes**, one image and one head:
# $Q, K, V$: $N \times d$;
# $E, F$: $r \times N$;
# $K', V'$: $r \times d$;
# $QK'^\top$: $N \times r$.
# ```
#
# ```{literalinclude} ../../medbench/attention/linformer.py
# :language: python
# :pyobject: Linformer.mix
# :dedent: 4
# ```
#
# The first line of the code refuses another number of tokens than the layer was built for: $E$ has one column for each.
#
# This is the equation. The layer itself does the same in another order. $E$ works along the tokens and the projection to
# keys along the channels, so it does not matter which comes first: $E(XW) = (EX)W$. With $EX$ first, only $r$ keys and
# values have to be projected in place of $N$:
#
# ```{literalinclude} ../../medbench/attention/linformer.py
# :language: python
# :pyobject: Linformer.forward
# :dedent: 4
# ```
#
# That takes $2NC^2 + 2rC^2$ multiply-adds for the projections, where every other mechanism pays $4NC^2$. A test holds the
# two orders together, to twelve digits.
#
# ## The check
#
# Is there a case in which Linformer *is* softmax? With $r = N$ and $E = F = I$ nothing is mixed before the comparison.
# We copy the projections of a softmax layer and set $E$ and $F$.

# %%
C, h, grid = 96, 3, (7, 5)
softmax = ATTENTION["softmax"](C, h, grid).double().eval()
linformer = ATTENTION["linformer"](C, h, grid, r=35).double().eval()
copied = linformer.load_state_dict(softmax.state_dict(), strict=False)
linformer.E.data = linformer.F.data = torch.eye(35, dtype=torch.float64)
x = torch.randn(2, 35, C, dtype=torch.float64)
difference = (linformer(x) - softmax(x)).abs().max().item()
print(f"its own: {copied.missing_keys}; largest difference: {difference:.1e}")

# %% [markdown]
# Only $E$ and $F$ are its own, and with the identity in them the two layers agree. So everything that differs lies in
# these two matrices.
#
# ## The limits
#
# ```{admonition} Predict before you run
# :class: tip
# 1. Shuffle the tokens. Are the outputs shuffled alike? Remember the columns of $E$.
# 2. Give every token twice. What happens?
# 3. Set $r = N$, with random $E$ and $F$. Is that softmax?
# ```

# %%
fresh = ATTENTION["linformer"](C, h, grid, r=35).double().eval()
fresh.load_state_dict(softmax.state_dict(), strict=False)
apart = (fresh(x) - softmax(x)).abs().max() / softmax(x).abs().max()
print(f"random E and F: off by {apart.item():.2f} of softmax's largest output")
mb.mixing.limits(fresh, x)

# %% [markdown]
# Three surprises for who comes from softmax. Shuffled tokens do not give shuffled outputs: column $j$ of $E$ belongs to
# place $j$, so this layer knows places. Twice as many tokens are refused. And $r = N$ alone does not give softmax back:
# $E$ and $F$ must leave every token unmixed, as the identity does. Random ones do not.
#
# ## The cost
#
# $EK$ and $FV$ take $rNC$ multiply-adds each, and so do the two products of attention:
#
# $$
# \text{mixing} = 4rNC \quad\text{against}\quad 2N^2C, \quad\text{equal at}\quad N = 2r .
# $$ (eq-linformer-cost)
#
# At fixed $r$ this is linear in $N$. The study chose $r = N/8$ instead. We count all three.

# %% mystnb={"image": {"alt": "Multiply-adds of mixing against tokens, logarithmic axes: softmax with slope two, Linformer with r equal to 32 and to 128 with slope one, and the choice r = N/8 with slope two, parallel to softmax at a quarter of its cost."}}
variants = {"softmax": ("softmax", {}), "linformer": ("linformer", {}),
            "r = 32": ("linformer", {"r": 32}),
            "r = N/8 (the study)": ("linformer", {"setting": "seed"})}
costs = mechanism.cost_table(variants, sides=(8, 16, 32, 64))
mb.plots.cost_curves(costs, highlight="linformer")
print("counted = closed form:", (costs.counted == costs.closed_form).all())

# %% [markdown]
# The line of the default, $r = \min(128, N)$, starts *above* softmax, meets it at 256 tokens and is below it only from
# there on. With $r = 32$ the crossing lies at 64 tokens. And the study's choice runs parallel to softmax for ever: a quarter
# of the cost, the same growth. $O(N)$ is a promise about fixed $r$.
#
# Does halving $r$ halve the time?

# %%
variants = {"softmax": ("softmax", {}), "r = 128": ("linformer", {"r": 128}),
            "r = 64": ("linformer", {"r": 64})}
times = mechanism.time_table(variants, (16, 32, 48), book)
table = times.pivot(index="num_tokens", columns="model", values="latency_ms")
print(mechanism.verdicts(times))
table.assign(ratio=table["r = 64"] / table["r = 128"]).round(3)

# %% [markdown]
# Times are in milliseconds; the last column is the time with $r = 64$ over that with $r = 128$. Halved time would be a ratio
# of 0.5. The nearer it is to 1, the more of the time goes to what $r$ does not touch: the projections, and starting each
# operation. And look at the first lines: is the layer faster than softmax where the multiply-adds say so?
#
# ## One knob: the rank
#
# Linformer bets that attention matrices are of low rank. Is the attention of a *trained* model? We take the softmax model
# of chapter 03, its matrix $A$ on the slice of that chapter, and turn the knob $r$.
#
# Eckart and Young {cite}`eckart1936` say how well any approximation of rank $r$ can do at best: it keeps the first $r$
# squared singular values. Linformer's proof takes a random projection $R$ with entries of variance $1/r$ and uses
# $A R^\top R$. How far is that from the best?

# %%
exp = mechanism.experiment("softmax", book)
data = mb.load_data(exp.data)
softmax = mb.fit(mb.build_model(exp.model), data, exp.training).model
batch = mechanism.brain_slice()
A = mechanism.attention_matrix(softmax, batch.images)
squares = torch.linalg.svdvals(A).square()
print(f"effective rank of A: {mb.mixing.effective_rank(A):.1f} of {len(A)}")

# %% mystnb={"image": {"alt": "Share of the squared norm of a trained attention matrix that is lost, against r: the best possible approximation falls steeply, a random projection stays far above it."}}
rows = []
for r in (1, 2, 4, 8, 16, 32, 64, 128):
    R = torch.randn(r, len(A)) / r**0.5
    lost = (A - A @ R.T @ R).square().sum() / A.square().sum()
    least = squares[r:].sum() / squares.sum()
    rows += [("best of rank r", r, least.item())]
    rows += [("random projection", r, lost.item())]
table = pd.DataFrame(rows, columns=["model", "r", "lost"])
ax = mb.plots.curves(table, "r", "lost", log=True, xlabel="rank r",
                     ylabel="share of squared norm lost (1)")
ax.axhline(1, color="#555555", linewidth=0.8);

# %% [markdown]
# Two different things are in this figure. The lower line says whether a good approximation of rank $r$ *exists*.
# The upper one is a random projection: above the line at 1 its error is larger than the matrix itself. So that a good
# approximation exists does not mean that a projection drawn blindly finds it. Linformer *learns* $E$ and $F$, and the same
# $E$ must serve every image.
#
# ## One brain slice
#
# And what does a trained Linformer mix? The same slice, the same two tokens as in chapter 03.

# %%
exp = mechanism.experiment("linformer", book)
run = mb.fit(mb.build_model(exp.model), data, exp.training)

# %% mystnb={"image": {"alt": "A drawn brain slice with an outlined lesion and two maps over it: what a token in the lesion and its mirror image listen to with Linformer."}}
matrix, grid = mechanism.mixing_of(run.model, batch.images)
inside, opposite = mechanism.two_tokens(batch, grid)
maps = {"token in the lesion": (matrix, inside),
        "its mirror image": (matrix, opposite)}
mb.plots.mixing_maps(batch.images[0], maps, grid, batch.lesion[0]);

# %% [markdown]
# Compare the two maps with each other first, and then with those of chapter 03. The more the two resemble each other, the
# less a token chooses whom it hears.

# %%
rows = mechanism.mixing_rows(matrix, grid)
mb.results.record("mixing.linformer", rows, to=book.results, seed=book.seed)
mechanism.mixing_table(rows, grid)

# %% [markdown]
# The effective rank in this table is that of the norms of the Jacobian, so it can exceed $r$: it is a description, the
# same for all mechanisms, and no proof about $A$.
#
# ## What it scores

# %% mystnb={"image": {"alt": "Balanced accuracy of all models with 95 percent intervals, Linformer highlighted."}}
scores = mechanism.recorded("balanced_accuracy", device=book.device)
mb.plots.scores(scores, highlight="linformer");

# %% [markdown]
# Linformer reaches {value}`10_training:phantom.linformer.balanced_accuracy|±`, softmax
# {value}`10_training:phantom.softmax.balanced_accuracy|±`, and the control without mixing
# {value}`10_training:phantom.none.balanced_accuracy|±`.
# Before you call one better, look at the intervals, and at chapter 14.
#
# These images are drawings with known answers; they rank how models learn this drawing and say nothing about patients.
# For research and teaching, not for clinical use.
#
# Where does it fail? Of the first thousand test images, these three it gets wrong with the greatest confidence.

# %% mystnb={"image": {"alt": "Three drawn slices that the Linformer model classifies wrongly with great confidence, lesions outlined, true and chosen class above each."}}
names = [mb.phantom.CLASS_NAMES[key] for key in data.classes]
seen = data.test.take(slice(1000))
mb.plots.failures(mb.predict(run.model, seen), seen, names, prior=data.prior);


# %% [markdown]
# Are these the images on which softmax failed? If so, the mechanism is not what made them hard.
#
# ## Exercises
#
# ````{exercise} How much rank is enough?
# :label: ex-linformer-rank
#
# Write `rank_for(A, energy)`: the least $r$ such that the best approximation of rank $r$ keeps at least the share
# `energy` of the squared norm of $A$. By Eckart and Young that norm is the sum of the squared singular values.
# ````

# %% tags=["skip-execution"]
def rank_for(A, energy):
    ...

check("linformer.rank_for", rank_for)


# %% [markdown]
# ````{solution} ex-linformer-rank
# :class: dropdown
#
# ```python
# def rank_for(A, energy):
#     squares = torch.linalg.svdvals(A).square()
#     kept = squares.cumsum(0) / squares.sum()
#     return int((kept < energy).sum()) + 1
#
# check("linformer.rank_for", rank_for)
# ```
#
# Apply it to the matrix `A` above with 0.9 and compare with the default $r$.
# ````
#
# ````{exercise} Another image size
# :label: ex-linformer-carry
#
# A model was trained at 112 px and is to see 224 px. $E$ has a column for each token of the old grid.
# Write `carry(E, old_grid, new_grid)` that returns $E$ for the new grid $(H, W)$: on the same grid it changes nothing, each
# row keeps its sum, so that summaries keep their scale, and a row that weighs the top of the image still does.
# ````

# %% tags=["skip-execution"]
def carry(E, old_grid, new_grid):
    ...

check("linformer.carry", carry)


# %% [markdown]
# ````{solution} ex-linformer-carry
# :class: dropdown
#
# A row of $E$ is an image of weights: resize it like one, and scale it back to its sum.
#
# ```python
# def carry(E, old_grid, new_grid):
#     images = E.view(-1, 1, *old_grid)
#     resized = torch.nn.functional.interpolate(images, size=new_grid, mode="bilinear").flatten(1)
#     return resized * (E.sum(1) / resized.sum(1))[:, None]
#
# check("linformer.carry", carry)
# ```
#
# A row whose weights sum to zero cannot be scaled like this. What would you do with it?
# ````
#
# **An open question.** $E$ is the same for every image. Would a projection that depends on the image, such as the mean of
# each of $r$ regions, keep more of the lesion? Which of the limits above would change?
#
# ## Quiz
#
# ```{dropdown} 1. From how many tokens on does Linformer with r = 64 mix more cheaply than softmax?
# From 128 on: $4rNC < 2N^2C$ means $N > 2r$.
# ```
#
# ```{dropdown} 2. In the preset small the first stage has 256 tokens and r = 128. What does Linformer save there?
# Nothing: $N = 2r$. In the later stages $r = N$, and mixing costs twice that of softmax.
# ```
#
# ```{dropdown} 3. Why does a Linformer refuse an image of another size, when softmax does not?
# $E$ and $F$ have one column per token, and no rule says what a new token's column should be.
# ```
#
# ```{dropdown} 4. Does Linformer need a position encoding?
# Less than softmax: the columns of $E$ and $F$ already tell places apart. Queries, however, do not know their own place.
# ```
#
# **Three misconceptions**
#
# - *"Linformer makes small attentions, one for each part of the image."* It makes one attention to $r$ mixtures of all
#   tokens.
# - *"It is linear, so it is cheaper."* It is linear at fixed $r$, with a constant of $4r$. At $N \le 2r$ it costs more.
# - *"Low rank means that little is lost."* The best low-rank matrix may lose little. A random projection loses much, as the
#   figure above shows.
#
# ## Where the study and its code differ from the paper
#
# - The study's $r$ is $\max(1, N/8)$ in each stage: 128, 32, 8 and 2 at 224 px. Its cost grows as $N^2$ after all. The study's
#   text calls that linear; its table says $O(N^2C)$.
# - Its code has one projection *with bias*, shared by keys, values and heads. The paper offers several ways of sharing; the
#   `faithful` setting here shares $E$ and $F$ among the heads and not between keys and values, without bias: our choice.
# - With 1,000 classes the study's table gives {value}`study-2022/11_cost:cost.linformer.macs_fvcore|.2f G`. Chapter 02
#   reproduces it with `setting="seed"`.
# - The study describes it as "smaller attentions". It is a low-rank projection along the tokens.
#
# What does the study's setting change in a layer? We build both on the grid of the large preset's first stage.

# %%
def costs_of(name, **options):
    return mb.cost.profile(ATTENTION[name](96, 3, (32, 32), **options), (1, 1024, 96))

rows = []
for setting in ("faithful", "seed"):
    costs = costs_of("linformer", setting=setting)
    own = costs.params - costs_of("softmax").params
    rows.append((setting, own, costs.mixing_macs))
pd.DataFrame(rows, columns=["setting", "own parameters", "mixing (MAC)"])

# %% [markdown]
# At this size both have $r = 128$ and the same mixing; sharing halves the parameters. They part company where the image
# grows.
#
# ## Further reading
#
# - {cite}`wang2020linformer`: the theorem, the projections, and the experiments on rank.
# - {cite}`eckart1936`: the best approximation of a given rank.
# - {cite}`dong2021`: pure attention, without skip connections and MLPs, loses rank with depth at great speed.
# - {cite}`tay2022survey`: where Linformer stands among the efficient transformers.
