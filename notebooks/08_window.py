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
# # Windows
#
# ```{admonition} In this chapter
# :class: note
# **You will learn** to cut a grid into windows, to let every second block shift them, to write the mask that this needs,
# and to say how far a stack of such blocks can see.
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

book = start("08_window", globals())

# %% [markdown]
# ## The question
#
# Is it enough to look at the neighbourhood, if the neighbourhoods overlap from block to block?
#
# Swin {cite}`liu2021swin` computes softmax attention, unchanged, but only among the tokens of one window. In every second
# block the windows are shifted by half their side, so that what was on two sides of a border comes together.
#
# ```{admonition} Predict before you run
# :class: tip
# 1. Four times as many tokens, windows of the same side: by which factor does the arithmetic of mixing grow?
# 2. A grid of 8 x 8 tokens, windows of 4 x 4. How many tokens can one output depend on at most after one block? After two?
# ```
#
# ## The idea in one picture
#
# A grid of 8 x 8 tokens in windows of 4 x 4. Who mixes with whom in the first block, and in the second, whose windows are
# shifted?

# %% mystnb={"image": {"alt": "Two 64 by 64 mixing pictures. Left, four groups of tokens that mix only among themselves, seen as a block pattern. Right, after the shift, nine groups of different sizes."}}
torch.manual_seed(book.seed)
x = torch.randn(1, 64, 32)
blocks = [ATTENTION["window"](32, 1, (8, 8), layer_index=i, window_size=4).eval() for i in range(2)]
_, axes = mb.plots.figure(columns=2, width=7.5, height=3.3)
for ax, block, title in zip(axes, blocks, ("first block", "second block, shifted by 2")):
    mb.plots.who_mixes(mb.mixing.matrix(block, x), ax, title=title, bar=r"$\|\partial y_i/\partial x_j\|$ (1)")

# %% [markdown]
# Most cells are empty, the first such picture besides `none`. Tokens are numbered row by row, so one window of the grid
# appears as a broken block. On the right the groups are others, and there are nine: the roll that shifts the windows
# brings opposite edges of the image into one window, and a mask keeps them apart.
#
# ## The equation
#
# $$
# \mathrm{softmax}\!\left(\frac{QK^\top}{\sqrt d} + b\right) V \qquad\text{within each window of}\quad M = w^2
# \quad\text{tokens}
# $$ (eq-window)
#
# It is softmax attention, with one thing added to the logits: $b$ holds a learned number for each difference of places,
# $(2w-1)^2$ of them for each head, and in shifted blocks the mask.
#
# ```{margin}
# **Shapes**, one window and one head:
# $Q, K, V$: $M \times d$;
# $QK^\top, b$: $M \times M$.
# There are $N/M$ windows.
# ```
#
# ```{literalinclude} ../../medbench/attention/window.py
# :language: python
# :pyobject: Window.mix
# :dedent: 4
# ```
#
# ```{literalinclude} ../../medbench/attention/window.py
# :language: python
# :pyobject: Window.forward
# :dedent: 4
# ```
#
# ## The check
#
# timm {cite}`wightman2019timm` has the authors' block. We copy the weights of its attention and compare the attention of
# both, with and without the shift, in float64.

# %%
from timm.models.swin_transformer import SwinTransformerBlock

C, h, grid, w = 96, 3, (8, 12), 4
x = torch.randn(2, 96, C, dtype=torch.float64)
for index, shift in enumerate((0, 2)):
    timms = SwinTransformerBlock(C, grid, h, window_size=w, shift_size=shift).double().eval()
    torch.nn.init.normal_(timms.attn.relative_position_bias_table)
    ours = ATTENTION["window"](C, h, grid, layer_index=index, window_size=w).double().eval()
    ours.load_state_dict(timms.attn.state_dict(), strict=True)
    theirs = timms._attn(x.unflatten(1, grid)).flatten(1, 2)
    print(f"shift {shift}: largest difference {(ours(x) - theirs).abs().max().item():.1e}")

# %% [markdown]
# The same function, shifted or not. And in the limit of one window with zero bias?

# %%
one = ATTENTION["window"](C, h, grid, window_size=12).double().eval()
softmax = ATTENTION["softmax"](C, h, grid).double().eval()
one.relative_position_bias_table.data.zero_()
softmax.load_state_dict({n: p for n, p in one.state_dict().items() if "relative" not in n}, strict=True)
print(f"one window, zero bias: {(one(x) - softmax(x)).abs().max().item():.1e} from softmax")

# %% [markdown]
# Then it is softmax attention. Remember this for the pyramid: at 224 px the third and the fourth stage of the large preset
# are a single window. There the two models differ by the bias alone.
#
# ## The limits
#
# ```{admonition} Predict before you run
# :class: tip
# 1. Shuffle the tokens. Are the outputs shuffled alike?
# 2. Give every token twice. What happens?
# 3. Change one token. How many outputs move, of 96?
# ```

# %%
mb.mixing.limits(ours, x)

# %% [markdown]
# A shuffle tears windows apart, so the outputs change: this mechanism knows places, twice over, by the windows and by the
# bias. Twice as many tokens make no such grid. And only what shares a window moves. Here the changed token stands in the
# corner of the shifted block, where the mask leaves it 2 x 2 tokens.
#
# ## The cost
#
# Each token meets the $M$ tokens of its window, twice:
#
# $$
# \text{mixing} = 2NMC, \qquad\text{equal to softmax at}\quad N = M .
# $$ (eq-window-cost)

# %% mystnb={"image": {"alt": "Multiply-adds of mixing against tokens, logarithmic axes: softmax with slope two; windows of 8 and of 4 follow it up to 64 and 16 tokens and then go on with slope one."}}
variants = {"softmax": ("softmax", {}), "window": ("window", {"window_size": 8}), "w = 4": ("window", {"window_size": 4})}
costs = mechanism.cost_table(variants, sides=(4, 8, 16, 32, 64))
mb.plots.cost_curves(costs, highlight="window")
print("counted = closed form:", (costs.counted == costs.closed_form).all())

# %% [markdown]
# The line follows softmax up to one window and then turns into slope one. It never lies above softmax. The side of the
# window is a dial between the two.
#
# And the time?

# %%
variants = {"softmax": ("softmax", {}), "window": ("window", {"window_size": 8}), "none": ("none", {})}
times = mechanism.time_table(variants, sides=(8, 16, 32), book=book)
times.pivot(index="num_tokens", columns="model", values="latency_ms").round(3)

# %% [markdown]
# Cutting and putting back copies every token. At few tokens that can cost more than the attention saves.
#
# ## One knob: depth
#
# One block sees one window. How far do several blocks see? We stack them, each with a skip connection, and ask on which
# share of the tokens a token in the middle depends.
#
# ```{admonition} Predict before you run
# :class: tip
# A grid of 16 x 16, windows of 4. After how many blocks does one output depend on the whole image? And without the shift?
# ```

# %%
def share_reached(depth, shifts):
    layers = [ATTENTION["window"](8, 1, (16, 16), layer_index=i * shifts, window_size=4).eval() for i in range(depth)]
    def stack(x):
        for layer in layers:
            x = x + layer(x)
        return x
    reached = mb.mixing.matrix(stack, torch.randn(1, 256, 8), rows=[7 * 16 + 7]) > 0
    return reached.double().mean().item()

rows = [(depth, share_reached(depth, 1), share_reached(depth, 0)) for depth in (1, 2, 3, 4, 6, 8)]
pd.DataFrame(rows, columns=["blocks", "share reached, with shifts", "share reached, without"]).round(3)

# %% [markdown]
# Without shifts a token never leaves its window, however deep the stack. With shifts every further block adds up to one
# side of a window, until the edge of the image: 4, 8, 12, 16 tokens here. In the pyramid the reach also grows by merging:
# four tokens become one, and a window covers four times the area.
#
# ## One brain slice
#
# What does a trained window model mix? The slice and the two tokens of chapter 03, in the second block, which is shifted.

# %%
exp = mechanism.experiment("window", book)
data = mb.load_data(exp.data)
run = mb.fit(mb.build_model(exp.model), data, exp.training)

# %% mystnb={"image": {"alt": "A drawn brain slice with an outlined lesion and two maps over it: what a token in the lesion and its mirror image listen to with shifted windows; each sees only a small square around itself."}}
batch = mechanism.brain_slice()
matrix, grid = mechanism.mixing_of(run.model, batch.images)
inside, opposite = mechanism.two_tokens(batch, grid)
maps = {"token in the lesion": (matrix, inside), "its mirror image": (matrix, opposite)}
mb.plots.mixing_maps(batch.images[0], maps, grid, batch.lesion[0]);

# %% [markdown]
# Each token hears its window, and nothing beyond. The healthy half cannot be compared with the sick one here; that has to
# wait for a later stage.

# %%
rows = mechanism.mixing_rows(matrix, grid)
mb.results.record("mixing.window", rows, to=book.results, seed=book.seed)
mechanism.mixing_table(rows, grid)

# %% [markdown]
# Within a window of 4 x 4 nothing is further away than $3\sqrt 2$ tokens, so the mean distance must be small.
#
# ## What it scores

# %% mystnb={"image": {"alt": "Balanced accuracy of all models with 95 percent intervals, windows highlighted."}}
mb.plots.scores(mechanism.recorded("balanced_accuracy", device=book.device), highlight="window");

# %% [markdown]
# Windows reach {value}`10_training:phantom.window.balanced_accuracy|±`, softmax
# {value}`10_training:phantom.softmax.balanced_accuracy|±`, and the control without mixing
# {value}`10_training:phantom.none.balanced_accuracy|±`. The trained preset has windows of 4, so that there is more than
# one in the first two stages. Look at the intervals before you rank, and at chapter 14.
#
# These images are drawings with known answers; they rank how models learn this drawing and say nothing about patients.
# For research and teaching, not for clinical use.
#
# Where does it fail? Of the first thousand test images, these three it gets wrong with the greatest confidence.

# %% mystnb={"image": {"alt": "Three drawn slices that the window model classifies wrongly with great confidence, lesions outlined, true and chosen class above each."}}
names = [mb.phantom.CLASS_NAMES[key] for key in data.classes]
seen = data.test.take(slice(1000))
mb.plots.failures(mb.predict(run.model, seen), seen, names, prior=data.prior);


# %% [markdown]
# Would a comparison with the other half of the brain have helped?
#
# ## Exercises
#
# ````{exercise} The mask
# :label: ex-window-mask
#
# A grid of $H \times W$ tokens is rolled towards the top left, as `x.roll((-s, -s), (1, 2))` with `s = w // 2` rolls
# $(B, H, W, C)$, and cut into windows of side `w`. Write
# `shift_mask(H, W, w)`: a tensor of shape (windows, $M$, $M$) with 0 where two tokens of a window may look at each other
# and -100 where the roll brought them together from opposite edges. A side that holds a single window is not shifted.
# ````

# %% tags=["skip-execution"]
def shift_mask(H, W, w):
    ...

check("window.shift_mask", shift_mask)


# %% [markdown]
# ````{solution} ex-window-mask
# :class: dropdown
#
# Number the regions that stay together before the roll, roll the numbers along with the tokens, and compare.
#
# ```python
# def shift_mask(H, W, w):
#     def regions(side):
#         s = w // 2 if side > w else 0
#         place = (torch.arange(side) + s) % side
#         return (place < s).long() if s else torch.zeros(side).long()
#     label = 2 * regions(H)[:, None] + regions(W)
#     label = label.view(H // w, w, W // w, w).transpose(1, 2).reshape(-1, w * w)
#     return (label[:, :, None] != label[:, None, :]) * -100.0
#
# check("window.shift_mask", shift_mask)
# ```
#
# Why -100 and not minus infinity? Both work, as long as no row is blocked as a whole.
# ````
#
# ````{exercise} How far does it reach?
# :label: ex-window-reach
#
# Write `reach(grid, w, depth)`: an $N \times N$ tensor of booleans, true at $(i, j)$ where output $i$ of that many blocks
# depends on input $j$. The blocks are numbered from 0, have skip connections, and the odd ones are shifted by `w // 2`.
# ````

# %% tags=["skip-execution"]
def reach(grid, w, depth):
    ...

check("window.reach", reach)

# %% [markdown]
# ````{solution} ex-window-reach
# :class: dropdown
#
# Which tokens share a window is a pattern of booleans. Patterns of blocks compose like matrices.
#
# ```python
# def reach(grid, w, depth):
#     total = torch.eye(grid[0] * grid[1])
#     for block in range(depth):
#         shifts = [w // 2 * (block % 2) if side > w else 0 for side in grid]
#         rows, columns = ((torch.arange(side) - s).div(w, rounding_mode="floor") for side, s in zip(grid, shifts))
#         window = (rows[:, None] * 10_000 + columns).flatten()
#         total = (window[:, None] == window).float() @ total
#     return total > 0
#
# check("window.reach", reach)
# ```
# ````
#
# **An open question.** The shift moves windows by half a side along both axes. Which other ways of regrouping tokens would
# reach the whole image in fewer blocks, at the same cost?
#
# ## Quiz
#
# ```{dropdown} 1. A grid of 32 x 32, windows of 8. How many windows are there, and how many regions after the shift?
# 16 windows. After the shift the windows at the seams hold several regions: 5 x 5 = 25 in all.
# ```
#
# ```{dropdown} 2. By what factor is the mixing of such a grid cheaper than that of softmax?
# By $N/M = 1024/64 = 16$.
# ```
#
# ```{dropdown} 3. Why is the last stage never shifted?
# Its grid is a single window: there is no border to cross.
# ```
#
# ```{dropdown} 4. What is b for?
# It tells a query how far away, and in which direction, a key is.
# ```
#
# **Three misconceptions**
#
# - *"Swin has local windows and ordinary attention for what is far."* It has windows only. What is far is reached by
#   shifts and by merging.
# - *"Two shifted blocks see the whole image."* They see a square of at most two window sides. The image has to be crossed
#   block by block, or by merging.
# - *"The mask is a detail."* Without it the left edge of the image talks to the right edge.
#
# ## Where the study and its code differ from the paper
#
# - In its code the windows are never shifted, and there is no bias. So tokens of different windows meet only by merging.
#   `setting="seed"` does the same; chapter 02 reproduces its
#   {value}`study-2022/11_cost:cost.window.macs_fvcore|.2f G` with 1,000 classes.
# - The study {cite}`study2022` says that Swin has "normal self-attention" for global interactions. It has none.
# - It gives windows a cost of $O(NC^3)$ in its table and $O(NCw^2)$ in its text. The second is right.
# - `window` in our pyramid is not the whole Swin, which has other dimensions, another patch size and no Fourier features.
#
# What does the missing shift change? The last column of the depth table above shows it.
#
# ## Further reading
#
# - {cite}`liu2021swin`, section 3.2: the shift, the mask and the bias.
# - {cite}`dosovitskiy2021`: the global attention that it replaces.
# - {cite}`raghu2021`: how local trained global attention is in early layers.
