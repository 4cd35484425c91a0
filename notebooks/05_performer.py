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
# # Performer
#
# ```{admonition} In this chapter
# :class: note
# **You will learn** to replace the exponential of a product by a product of random features, to change the order of
# multiplication so that no $N \times N$ matrix appears, and to test an estimator: is it unbiased, does it converge, where
# does it fail?
# **You need** chapter 03, and from statistics the mean, the variance and the standard error.
# **Time**: 40 minutes, exercises included.
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

book = start("05_performer", globals())

# %% [markdown]
# ## The question
#
# Can we have softmax attention without its $N \times N$ matrix, by drawing random numbers?
#
# The matrix is in the way because of the exponential: $\exp(q^\top k)$ does not fall apart into a part of $q$ and a part of
# $k$. Performer {cite}`choromanski2021` finds features $\phi$ with $\exp(q^\top k) = \mathrm E[\phi(q)^\top \phi(k)]$.
# Then the parts can be multiplied in another order.
#
# ```{admonition} Predict before you run
# :class: tip
# 1. Take four times as many features. By which factor does the error shrink: 4, 2, or not at all?
# 2. With $r$ features, from how many tokens on is Performer cheaper than softmax?
# 3. Which inputs are hard: small ones or large ones?
# ```
#
# ## The idea in one picture
#
# If the estimate is good, the picture of who talks to whom must look like that of softmax. We give one layer of each kind the
# same projections and the same 36 tokens, and let Performer use 8 and 512 features.

# %% mystnb={"image": {"alt": "Three 36 by 36 mixing pictures: softmax, Performer with 8 features, Performer with 512 features. The third looks like the first, the second is a coarse version of it."}}
torch.manual_seed(book.seed)
x = 0.5 * torch.randn(1, 36, 32)
softmax = ATTENTION["softmax"](32, 1, (6, 6)).eval()
_, axes = mb.plots.figure(columns=3, width=9, height=3.2)
mb.plots.who_mixes(mb.mixing.matrix(softmax, x), axes[0], title="softmax")
for ax, r in zip(axes[1:], (8, 512)):
    layer = ATTENTION["performer"](32, 1, (6, 6), r=r).eval()
    layer.load_state_dict(softmax.state_dict() | {"W": layer.W})
    mixing = mb.mixing.matrix(layer, x)
    mb.plots.who_mixes(mixing, ax, title=f"Performer, r = {r}")

# %% [markdown]
# With many features the right picture approaches the left one, cell by cell. With few, the middle one has streaks of its
# own: they come from the random numbers, not from the tokens.
#
# ## The equation
#
# $$
# \begin{aligned}
# \phi(x) &= \frac{1}{\sqrt r}\exp\!\left(Wx' - \tfrac12 |x'|^2\right), \qquad x' = x\, d^{-1/4} \\
# \mathrm{out} &= \frac{\phi(Q)\,\bigl(\phi(K)^\top V\bigr)}{\phi(Q)\,\bigl(\phi(K)^\top 1\bigr)}
# \end{aligned}
# $$ (eq-performer)
#
# Here $1$ is the vector of $N$ ones. The brackets are the point: $\phi(K)^\top V$ is computed first, and it is small.
#
# ```{margin}
# **Shapes**, one image and one head:
# $Q, K, V$: $N \times d$;
# $W$: $r \times d$;
# $\phi(Q), \phi(K)$: $N \times r$;
# $\phi(K)^\top V$: $r \times d$.
# ```
#
# Why is it right on average? For a row $w$ of $W$ with independent normal entries,
# $\mathrm E[e^{w^\top (q' + k')}] = e^{|q' + k'|^2/2}$, and $|q'+k'|^2/2 = |q'|^2/2 + |k'|^2/2 + q'^\top k'$.
# Taking off the two norms leaves $e^{q'^\top k'} = e^{q^\top k/\sqrt d}$. The features are positive, so no weight is negative.
#
# The rows of $W$ are not independent here: in each block of $d$ they are orthogonal, with the lengths of normal vectors.
# Each row alone is still normal, so the mean stays right, and the error gets smaller.
#
# ```{literalinclude} ../../medbench/attention/performer.py
# :language: python
# :pyobject: Performer.project
# :dedent: 4
# ```
#
# ```{literalinclude} ../../medbench/attention/performer.py
# :language: python
# :pyobject: Performer.log_features
# :dedent: 4
# ```
#
# ```{literalinclude} ../../medbench/attention/performer.py
# :language: python
# :pyobject: Performer.quotient
# :dedent: 4
# ```
#
# Between them, the code takes out what cancels in the quotient: the largest exponents, so that nothing overflows, and the
# norm of each query, which need not be computed at all.
#
# ## The check
#
# Two things have to be checked, and they are different. First the *order*: with the same features, is the small product the
# same as the $N \times N$ one?

# %%
layer = ATTENTION["performer"](24, 3, (7, 5), r=50).double().eval()
q, k, v = layer.heads(torch.randn(2, 35, 24, dtype=torch.float64))
phi_q, phi_k = layer.log_features(q).exp(), layer.log_features(k).exp()
weights = phi_q @ phi_k.mT                                    # (B, h, N, N)
spelt_out = (weights @ v) / weights.sum(-1, keepdim=True)
difference = (layer.mix(q, k, v) - spelt_out).abs().max().item()
print(f"largest difference: {difference:.1e}")


# %% [markdown]
# Changing the order is exact. Second the *estimate*: does it tend to softmax as $r$ grows, and how fast? The error of a mean
# of $r$ draws should fall as $1/\sqrt r$. We measure it on inputs of half the usual size, ten times for each
# $r$ with a $W$ of its own, and take the median.

# %%
def error(r, scale=0.5, draws=10, d=8, setting="faithful"):
    g = torch.Generator().manual_seed(book.seed)
    q, k, v = scale * torch.randn(3, 1, 1, 35, d, generator=g).double()
    exact = ATTENTION["softmax"](d, 1, (7, 5)).mix(q, k, v)
    errors = []
    for _ in range(draws):
        layer = ATTENTION["performer"](d, 1, (7, 5), r=r, setting=setting)
        errors.append((layer.double().mix(q, k, v) - exact).norm())
    return (torch.stack(errors).median() / exact.norm()).item()

sizes = [64, 256, 1024, 4096, 16384]
obtained = [error(r) for r in sizes]

# %% mystnb={"image": {"alt": "Relative error of Performer against the number of features on logarithmic axes: the measured errors fall nearly as steeply as the predicted line of slope minus one half and lie near it."}}
curve = pd.DataFrame({"model": "performer", "r": sizes, "error": obtained})
predicted = [obtained[0] * (64 / r) ** 0.5 for r in sizes]
line = pd.DataFrame({"model": "predicted: 1/sqrt(r)", "r": sizes, "error": predicted})
mb.plots.curves(pd.concat([curve, line]), "r", "error", log=True,
                xlabel="random features r", ylabel="relative error (1)");

# %% [markdown]
# The line is tied to the first point, so compare the slopes only: four times the features leave about half the error. Up to
# the last point no floor is seen. That is less obvious than it sounds: the second exercise has a sampler with a floor.
#
# ## The limits
#
# ```{admonition} Predict before you run
# :class: tip
# 1. Shuffle the tokens. Are the outputs shuffled alike?
# 2. Give every token twice. Do the outputs change? Look at the two sums in the quotient.
# 3. Change one token. How many outputs move?
# ```

# %%
mb.mixing.limits(layer, torch.randn(2, 35, 24, dtype=torch.float64))

# %% [markdown]
# The answers are those of softmax, for *any* $W$: nothing in {eq}`eq-performer` knows a place or a count. So Performer keeps
# softmax's symmetries exactly, and only its weights approximately.
#
# ## The cost
#
# $\phi(Q)$ and $\phi(K)$ take $NrC$ multiply-adds each, $\phi(K)^\top V$ and the product with $\phi(Q)$ as many again.
# The normaliser takes $Nr$ for each head:
#
# $$
# \text{mixing} = 4NrC + Nrh .
# $$ (eq-performer-cost)

# %% mystnb={"image": {"alt": "Multiply-adds of mixing against tokens, logarithmic axes: softmax with slope two crosses Performer with 110 features near 220 tokens and Performer with 16 features near 32."}}
variants = {"softmax": ("softmax", {}), "performer": ("performer", {}),
            "r = 16 (the study)": ("performer", {"r": 16})}
costs = mechanism.cost_table(variants, sides=(4, 8, 16, 32, 64))
mb.plots.cost_curves(costs, highlight="performer")
print("counted = closed form:", (costs.counted == costs.closed_form).all())

# %% [markdown]
# Both lines of Performer have slope one. They cross softmax at $N = 2r + r/(2d)$: near 222 tokens with the default
# $r = 110$, near 32 with the study's 16. Exponentials are not in this count. Do they show in the time?

# %%
times = mechanism.time_table(variants, (8, 16, 32, 48), book)
print(mechanism.verdicts(times))
table = times.pivot(index="num_tokens", columns="model", values="latency_ms")
table.round(3)

# %% [markdown]
# Times are in milliseconds. Compare where the columns cross with where the lines crossed above. Performer starts more
# operations than one fused call, and it computes $2Nrh$ exponentials in full precision: both are missing from the count of
# multiply-adds, and both move the crossing to the right.
#
# ## One knob: the size of the inputs
#
# The estimate is unbiased for every input. But is it *good* for every input? Turn the scale of $q$, $k$ and $v$ at a fixed
# $r$ of 110 features.
#
# ```{admonition} Predict before you run
# :class: tip
# The variance of $\phi(q)^\top\phi(k)$, relative to the square of the weight, grows like $\exp(|q' + k'|^2)$. What happens
# to the error when the inputs double?
# ```

# %%
knob = [(s, error(110, scale=s, d=32)) for s in (0.25, 0.5, 1, 2, 4)]
columns = ["scale of the inputs", "relative error"]
pd.DataFrame(knob, columns=columns).round(3)

# %% [markdown]
# The error is small for small inputs and then takes off. At 1 it is as large as the output itself: no better than zeros.
# Sharp attention, where one key wins, needs large products, and there random features need very many draws. Performer
# approximates *flat* attention.
#
# ## One brain slice
#
# What does a trained Performer mix? The model was not asked to imitate softmax: it was trained with its own features.

# %%
exp = mechanism.experiment("performer", book)
data = mb.load_data(exp.data)
run = mb.fit(mb.build_model(exp.model), data, exp.training)

# %% mystnb={"image": {"alt": "A drawn brain slice with an outlined lesion and two maps over it: what a token in the lesion and its mirror image listen to with Performer."}}
batch = mechanism.brain_slice(exp.data.img_size)
matrix, grid = mechanism.mixing_of(run.model, batch.images)
inside, opposite = mechanism.two_tokens(batch, grid)
maps = {"token in the lesion": (matrix, inside),
        "its mirror image": (matrix, opposite)}
mb.plots.mixing_maps(batch.images[0], maps, grid, batch.lesion[0]);

# %% [markdown]
# Is there structure in these maps, or noise? Compare with the two maps of chapter 03.

# %%
rows = mechanism.mixing_rows(matrix, grid)
mb.results.record("mixing.performer", rows, to=book.results, seed=book.seed)
mechanism.mixing_table(rows, grid)

# %% [markdown]
# The three numbers are those of the other chapters, by the same definition.
#
# And how large are the inputs in the trained model? The knob above says whether its features can then be exact.

# %%
attn = run.model.stages[0].blocks[1].attn
images = mb.data.to_input(batch.images, run.model.config.in_chans).to(book.device)
q, k, _ = attn.heads(mb.mixing.tokens_into(run.model, attn, images))
size = (q.square().mean().sqrt() * k.square().mean().sqrt()).sqrt().item()
print(f"root mean square of q and k: {size:.2f}")

# %% [markdown]
# ## What it scores

# %% mystnb={"image": {"alt": "Balanced accuracy of all models with 95 percent intervals, Performer highlighted."}}
scores = mechanism.recorded("balanced_accuracy", device=book.device)
mb.plots.scores(scores, highlight="performer");

# %% [markdown]
# Performer reaches {value}`10_training:phantom.performer.balanced_accuracy|±`, softmax
# {value}`10_training:phantom.softmax.balanced_accuracy|±`, and the control without mixing
# {value}`10_training:phantom.none.balanced_accuracy|±`.
# If the first two agree within their intervals, that says that this task can be learned with either, not that the two
# compute the same.
#
# These images are drawings with known answers; they rank how models learn this drawing and say nothing about patients.
# For research and teaching, not for clinical use.
#
# Where does it fail? Of the first thousand test images, these three it gets wrong with the greatest confidence.

# %% mystnb={"image": {"alt": "Three drawn slices that the Performer model classifies wrongly with great confidence, lesions outlined, true and chosen class above each."}}
names = [mb.phantom.CLASS_NAMES[key] for key in data.classes]
seen = data.test.take(slice(1000))
mb.plots.failures(mb.predict(run.model, seen), seen, names, prior=data.prior);


# %% [markdown]
# ## Exercises
#
# ````{exercise} Positive features
# :label: ex-performer-features
#
# Write `features(x, W)`: for tokens $x$ of shape $(n, d)$ and random rows $W$ of shape $(m, d)$, drawn from a standard normal
# distribution, return features with $\mathrm E[\phi(q)^\top \phi(k)] = \exp(q^\top k)$. They must be positive. (The scaling
# by $d^{-1/4}$ has been done already.) The check draws many $W$ and compares with the sine and cosine features that were known
# before {cite}`rahimi2007`: at $k = -q$, where the weight is small, yours must err less.
# ````

# %% tags=["skip-execution"]
def features(x, W):
    ...

check("performer.features", features)


# %% [markdown]
# ````{solution} ex-performer-features
# :class: dropdown
#
# ```python
# def features(x, W):
#     return torch.exp(x @ W.T - x.square().sum(-1, keepdim=True) / 2) / len(W) ** 0.5
#
# check("performer.features", features)
# ```
#
# Sines and cosines are unbiased as well. But near a weight of zero their terms cancel, and what is left is noise that can be
# negative; then the normaliser can be near zero too.
# ````
#
# ````{exercise} Repair the sampler
# :label: ex-performer-sampler
#
# Orthogonal rows make the error smaller than independent ones. A colleague samples them like this. Something is wrong with the
# directions, something with the lengths, and it stops at $r = d$. Repair all three: any $r$; orthogonal rows within each block
# of $d$; lengths that vary as those of normal vectors with $d$ entries do; and no preferred direction. Beware: QR fixes the
# signs by a rule of its own; the diagonal of $R$ tells which.
# ````

# %% tags=["skip-execution"]
def sampler(r, d, generator):
    Q, R = torch.linalg.qr(torch.randn(d, d, generator=generator))
    return Q[:r] * d**0.5

check("performer.sampler", sampler)

# %% [markdown]
# ````{solution} ex-performer-sampler
# :class: dropdown
#
# QR makes $Q$ unique by a convention on the signs of $R$'s diagonal, and so prefers some rotations. Multiplying the columns of
# $Q$ by these signs makes it uniform {cite}`mezzadri2007`.
#
# ```python
# def sampler(r, d, generator):
#     blocks = []
#     for _ in range(-(-r // d)):
#         Q, R = torch.linalg.qr(torch.randn(d, d, generator=generator))
#         blocks.append(Q * R.diagonal().sign())
#     lengths = torch.randn(r, d, generator=generator).norm(dim=1, keepdim=True)
#     return torch.cat(blocks)[:r] * lengths
#
# check("performer.sampler", sampler)
# ```
# ````
#
# **An open question.** $W$ is drawn once and kept. The paper also redraws it during training. What would you expect from that
# for a model's scores from one evaluation to the next, and how would you report them?
#
# ## Quiz
#
# ```{dropdown} 1. Where does the saving come from: from the random features, or from the brackets?
# From the brackets. The features only make them possible: without a product form there is nothing to reorder.
# ```
#
# ```{dropdown} 2. To halve the error, how many features are needed?
# Four times as many, and four times the arithmetic.
# ```
#
# ```{dropdown} 3. Why is the vector of ones in the denominator, and not an identity matrix?
# $\phi(K)^\top 1$ is the sum of the features of all keys. Its product with $\phi(Q)$ is the sum of each row of weights, that
# is the normaliser of softmax.
# ```
#
# ```{dropdown} 4. Some code adds a small constant to every feature. What does that do?
# It adds to every weight a part that knows nothing of how $q$ and $k$ fit together, so the output is pulled towards a mean of
# the values that is the same for all. The layer here adds nothing and takes out the largest exponent instead.
# ```
#
# **Three misconceptions**
#
# - *"Performer is exact."* It is unbiased in the numerator and in the denominator; their quotient is not, and the error for
#   given inputs falls only as $1/\sqrt r$.
# - *"r = 110 features is a property of the data."* It is $d \ln d$ for $d = 32$, a rule of the paper, whatever the images.
# - *"Random features make a random model."* $W$ is drawn once from the model's seed and saved with it. The model is as
#   deterministic as any other.
#
# ## Where the study and its code differ from the paper
#
# - The study's code uses $r = d/2 = 16$ features, with rows of length $\sqrt r$ instead of the length of normal vectors, and
#   adds a constant of one millionth to the normaliser. Each head has its own $W$.
# - The study states the cost with $r = C^2$. That would exceed $N$; with its $r = 16$ the cost is $O(NrC)$.
# - In its formula an identity matrix stands where the vector of ones belongs.
# - In its table, with 1,000 classes: {value}`study-2022/11_cost:cost.performer.macs_fvcore|.2f G`. Chapter 02 reproduces it.
#
# What do the shorter rows change? They have $|w|^2 = r$ where $d$ belongs: with 16 instead of 32, all exponents are too
# small. We compare the error at equal $r$, on the same inputs.

# %%
scales = (0.25, 0.5, 1.0)
table = {"study, r = 16": [error(16, s, 20, 32, "seed") for s in scales],
         "faithful, r = 16": [error(16, s, 20, 32) for s in scales],
         "faithful, r = 110": [error(110, s, 20, 32) for s in scales]}
pd.DataFrame(table, index=pd.Index(scales, name="scale of the inputs")).round(3)

# %% [markdown]
# Short rows give flatter weights with less noise, but of another kernel: more features would not bring them nearer to softmax.
# Whether that harms a *trained* model is another question, since the model learns with the features it has.
#
# ## Further reading
#
# - {cite}`choromanski2021`: positive orthogonal random features, with the proofs.
# - {cite}`katharopoulos2020`: the same reordering with a fixed feature map, and why it makes transformers recurrent.
# - {cite}`rahimi2007`: random features for kernels, with sines and cosines.
# - {cite}`peng2021rfa`: random feature attention, with gates, at the same time.
# - {cite}`mezzadri2007`: how to draw a rotation, and what is wrong with plain QR.
