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
# # The backbone
#
# ```{admonition} In this chapter
# :class: note
# **You will learn** what six of our models share to the last weight, how an image becomes tokens and tokens become an
# answer, what each mechanism costs in terms of $N$, and where in the model that cost lies.
#
# **You need** matrix products and convolutions.
#
# **Time**: 35 minutes, exercises included.
# ```

# %% tags=["parameters"]
profile = "laptop"
device = "auto"
seed = 0

# %%
import pandas as pd

import medbench as mb
from medbench.book import mechanism, pyramid, start
from medbench.book.exercises import check

book = start("02_backbone", globals())

# %% [markdown]
# ## The question
#
# What must stay the same, so that a difference between two models is a difference between two mechanisms?
#
# Papers on efficient attention change many things at once: the stem, the depth, the recipe, the data. Then nobody can
# say what helped. The study behind this book {cite}`study2022` and the paper whose model it uses {cite}`fair2022` did
# better: one backbone, and in it one part that changes. This chapter builds that backbone, measures it, and
# reproduces the study's cost table.
#
# ```{admonition} Predict before you run
# :class: tip
# Take the large model at 224 px with ordinary softmax attention. Of all its multiply-adds, what share is *mixing*,
# the part in which tokens look at each other: a tenth, a quarter, a half, or nine tenths? And at 448 px?
# ```
#
# ## The pyramid
#
# The image is cut into a grid, and every place of the grid becomes a token: a vector of $C$ channels. Four stages
# follow. Between two stages, four neighbouring tokens become one with twice the channels. So the grid gets coarser
# and the tokens get richer, as in a convolutional network. The picture is drawn from the model itself.

# %% mystnb={"image": {"alt": "A drawn brain slice with a grid over it, then four boxes of tokens: each has half the rows and columns of the one before and twice the depth. Under each box stand its blocks, pairs of a hatched mixing part and a plain MLP part. At the end the tokens are averaged and classified."}}
preset = book.profile.cost_preset
model = mb.build_model("softmax", preset=preset)
stages = pyramid.stages(model)
slice_ = mechanism.brain_slice(model.config.img_size[0])
mb.plots.pyramid(slice_.images[0], stages);

# %%
stages

# %% [markdown]
# From stage to stage the tokens become a quarter and the channels double, so the grid holds half as many numbers.
# Each block works on $N$ tokens of $C$ channels. These letters are used in the whole book:
#
# | letter | what it is |
# |---|---|
# | $B$ | images in a batch |
# | $N$ | tokens of one image in this stage |
# | $C$ | channels of a token in this stage |
# | $h$, $d$ | heads, and channels per head: $C = hd$ |
# | $r$ | Linformer's projected length, or Performer's number of random features |
# | $M$ | tokens in one window |
#
# ## One block
#
# What happens to the tokens in a block? Two steps, each added to what was there. First the tokens mix. Then each
# token goes through a small network of its own. Before each step the channels are normalised
# {cite}`ba2016,xiong2020`.
#
# ```{literalinclude} ../../medbench/backbone.py
# :language: python
# :pyobject: Block.forward
# :dedent: 4
# ```
#
# `self.attn` is the one part that changes between our models. It gets $N$ tokens and returns $N$ tokens. The block
# does not ask which mechanism it holds. (`local` does nothing, except in a version of XCA that chapter 07 speaks of.)
#
# Around the mixing, `self.attn` has projections: one matrix makes queries, keys and values (chapter 03 says what they are
# for), another one leads back.
# They cost $4NC^2$ multiply-adds. The MLP costs $8NC^2$. Only Linformer changes that: it projects fewer keys and values
# (chapter 04).
#
# ## From stage to stage
#
# How do four tokens become one? They are laid side by side, normalised, and mapped from $4C$ to $2C$ channels.
#
# ```{literalinclude} ../../medbench/backbone.py
# :language: python
# :pyobject: PatchMerge.forward
# :dedent: 4
# ```
#
# This mixes neighbours too! So even a model whose attention does nothing lets tokens meet, in the merges, in the
# stem, and in the mean at the end. We come back to that.
#
# ## Where a token is
#
# A block does not know where in the image its tokens lie. The model tells it once, at the start: each place gets a
# fixed pattern of sines and cosines {cite}`vaswani2017,elnouby2021xcit`, mapped to $C$ channels by a learned matrix
# and added. What do these patterns look like?

# %% mystnb={"image": {"alt": "Six square pictures of position patterns: waves from top to bottom, the second one shifted, the third one longer, and the same three from left to right."}}
features = model.stem.features[0]
axes = mb.plots.figure(columns=6, width=9, height=1.8)[1]
for ax, place in zip(axes, (0, 1, 4, 32, 33, 36)):
    ax.imshow(features[place], cmap="cividis", vmin=-1, vmax=1)
    ax.set(xticks=[], yticks=[], title=f"pattern {place}")

# %% [markdown]
# Patterns 0 to 31 change from top to bottom, patterns 32 to 63 from left to right. The first wave fits the grid once;
# then the waves get longer and longer, and the last ones are almost flat. Together they give every place its own
# code.
#
# ## Two stems, and why
#
# The large preset cuts the image into patches of 7 x 7 pixels and maps each by one matrix, as the study did. Our
# small presets use three small convolutions of stride 2 instead, with an image of 112 px resized to 128.
#
# **This is our deviation from the study, and it has a name: `stem="conv"`.** It is the same for all mechanisms. The
# reason is practical: a laptop can train the small model for minutes only, and with large patches it learns too
# little in that time to compare anything. That convolutions at the start help transformers is known {cite}`xiao2021`.
# The price: some of what a mechanism would have to learn is done before it sees a token. So results of the small
# preset belong to the small preset with this stem.
#
# How large are the presets?

# %%
rows = {}
for name in mb.config.PRESETS:
    model = mb.build_model("softmax", preset=name)
    rows[name] = {"px": model.config.img_size[0], "stem": model.config.stem,
                  "tokens": ", ".join(map(str, pyramid.stages(model).tokens)),
                  "blocks": ", ".join(map(str, model.config.depths)),
                  "parameters": f"{sum(p.numel() for p in model.parameters()):,}"}
pd.DataFrame(rows).T

# %% [markdown]
# `paper` is the study's size. It is used for costs and times, and for training where there is a large GPU. `small` is
# what a laptop trains. `smoke` is for tests. In `small` windows are 4 x 4 tokens on a 16 x 16 grid. With windows of 8
# on the coarse grids of a small image, hardly a block would ever shift, and the "window" model would nearly be softmax
# attention by another name.
#
# ## Is the rest really the same?
#
# Two models with different mechanisms: do the shared weights start equal? We compare every tensor of the same name
# and shape in the softmax model and in each other one.

# %%
def numbers(model):
    return sum(p.numel() for p in model.parameters())

reference, shared = mb.build_model("softmax", preset="small", seed=book.seed), {}
for name in (*mb.config.MECHANISMS, mb.config.CONTROL):
    other = mb.build_model(name, preset="small", seed=book.seed)
    tensors, count, equal = pyramid.shared_weights(reference, other)
    more = numbers(other) - numbers(reference)
    shared[name] = {"shared tensors": tensors, "numbers": f"{count:,}", "all equal": equal,
                    "more than softmax": f"{more:+,}"}
pd.DataFrame(shared).T

# %% [markdown]
# They are equal to the last bit. The mechanisms draw different amounts of random numbers, so each module has a
# generator of its own, seeded by its name. Without that, changing the mechanism would change every weight that is
# drawn after it.
#
# The mechanisms' own parameters are few, so what differs is how tokens mix and not how much can be stored. The
# exception is Linformer: its two projections along the tokens grow with the grid. And the control is smaller than all of
# them: it has no queries and keys. A gain over `none` holds that difference too.
#
# ## The control: no mixing
#
# The last row, `none`, has a value and a projection and no mixing at all. No token sees another one in its blocks.
# This is not a straw man: stem, merges and the final mean still let neighbours meet {cite}`yu2022metaformer`. **What
# a mechanism is worth is what it gains over `none`.** A table of efficient attentions without this row cannot say
# whether attention mattered.
#
# ## What each mechanism costs
#
# Now the complexity table, done right. Mixing is counted in multiply-adds (MAC) for one layer and one image. Every
# row but two also pays $4NC^2$ for its projections, which most tables leave out. Linformer's paper setting pays
# $2NC^2 + 2rC^2$.
#
# | mechanism | mixing, as its paper defines it | grows with $N$ as | in the study's code |
# |---|---|---|---|
# | softmax | $2N^2C$ | $N^2$ | the same |
# | Linformer | $4rNC$ | $N$ at fixed $r$ | $r = N/8$: $\tfrac12 N^2C$, so $N^2$ after all |
# | Performer | $4rNC + rNh$ | $N$ at fixed $r$ | the same with $r = d/2$ |
# | Fastformer | $NCd + 4NC$ | $N$ | $4NC$: no transform |
# | XCA | $2NCd = 2NC^2/h$ | $N$ | the same |
# | windows | $2NMC$ | $N$ at fixed $M$ | the same |
# | none | $0$ | – | projections $2NC^2$ |
#
# A formula is a claim. Does counting agree? For each mechanism torch counts the products of one layer with 96
# channels on five grids. We fix $r$ at 16 for Linformer here, since the default takes $r = N$ on the small grids.

# %%
options = {"linformer": {"r": 16}, "window": {"window_size": 4}}
names = (*mb.config.MECHANISMS, mb.config.CONTROL)
variants = {name: (name, options.get(name, {})) for name in names}
costs = mechanism.cost_table(variants, sides=(4, 8, 16, 32, 64))
print("counted = closed form, everywhere:", (costs.counted == costs.closed_form).all())

# %% mystnb={"image": {"alt": "Multiply-adds of mixing against the number of tokens on logarithmic axes. Softmax rises twice as steeply as all others; the others are parallel lines, Fastformer and window lowest, Performer highest."}}
mb.plots.cost_curves(costs[costs.model != "none"]);

# %% [markdown]
# One line is steeper than the others: softmax. All others have the same slope and differ by a factor. That factor
# matters: at few tokens the steep line lies below some of the flat ones. "Linear" does not mean cheaper. It means
# cheaper *from some N on*.
#
# What happens when the number of tokens grows by four, that is, when the side of the image doubles?

# %%
grown = costs.pivot(index="model", columns="num_tokens", values="counted")
grown = grown.loc[list(mb.config.MECHANISMS)]
pd.DataFrame({f"{n:,} to {4 * n:,}": grown[4 * n] / grown[n] for n in (256, 1024)}).round(2)

# %% [markdown]
# Sixteen times for softmax, four times for all the others. That is the promise of linear attention, and it holds.
#
# ## Where the cost of attention is
#
# Now the whole model. Mixing is one part of the arithmetic, beside projections, MLPs, the stem and the merges. Here
# is where the multiply-adds of the softmax model go, at this preset's own image size.

# %% mystnb={"image": {"alt": "Stacked bars of multiply-adds for four stages, split into mixing, projections, MLP and other. Mixing is the largest part of the first stage and nearly nothing in the last two."}}
model = mb.build_model("softmax", preset=preset)
size = (1, model.config.in_chans, *model.config.img_size)
parts = pyramid.parts(model, size)
giga = parts.assign(**{part: parts[part] / 1e9 for part in pyramid.PARTS})
mb.plots.stacked(giga, "stage", pyramid.PARTS, ylabel="multiply-adds (GMAC)");

# %% [markdown]
# The later stages have few tokens, and there mixing is next to nothing. Almost all of it is in the first stage, which
# has the most tokens. How does the share depend on the size of the image?

# %% mystnb={"image": {"alt": "Stacked bars for images of 112, 224 and 448 pixels, as shares of the whole: mixing grows from a small part to more than half."}}
by_size = pyramid.parts_by_size("softmax", preset)
total = by_size[list(pyramid.PARTS)].sum(axis=1)
shares = by_size.assign(**{part: by_size[part] / total for part in pyramid.PARTS})
mb.plots.stacked(shares, "img_size", pyramid.PARTS, xlabel="image side (px)",
                 ylabel="share of multiply-adds (1)");

# %% [markdown]
# That answers the prediction. We record the shares.

# %%
first = parts.mixing.iloc[0] / parts.mixing.sum()
rows = [{"quantity": "mixing_share", "value": row.share, "unit": "1",
         "suffix": f"px{row.img_size}", "context": {"tokens": row.tokens}}
        for row in by_size.itertuples()]
rows.append({"quantity": "mixing_in_first_stage", "value": first, "unit": "1"})
mb.results.record("backbone.softmax", rows, to=book.results, preset=preset)
by_size[["img_size", "tokens", "share"]].round(3)

# %% [markdown]
# At 224 px mixing is {value}`02_backbone:backbone.softmax.mixing_share.px224|.1%` of the multiply-adds, and
# {value}`02_backbone:backbone.softmax.mixing_in_first_stage|.0%` of that lies in the first stage.
#
# - **No swap of the mechanism can save more than this share.** A mechanism whose mixing were free would save it and
#   not a multiply-add more.
# - At 112 px it is {value}`02_backbone:backbone.softmax.mixing_share.px112|.1%`, at 448 px
#   {value}`02_backbone:backbone.softmax.mixing_share.px448|.1%`. Efficient attention is for many tokens. A claim
#   about it without its $N$ is not a claim.
# - With windows of 8 x 8, the last two stages of the large preset at 224 px are a single window, or less. There the
#   window model is softmax attention with a learned bias.
#
# ## The study's cost table, reproduced
#
# The study printed parameters and "FLOPS (Giga)" for seven models. Can we get the same numbers? We build its models,
# with the setting `seed`, which keeps each mechanism as the study's code computed it. We count multiply-adds as the
# library fvcore does {cite}`fvcore`: five per element for a LayerNorm, nothing for softmax, GELU and additions. And
# we do so for 1,000 classes and for the 10 of the study's data.

# %%
table = pyramid.study_table(num_classes=(1000, 10))
for _, row in table.iterrows():
    for k in (1000, 10):
        mb.results.record("table." + row.model, pyramid.study_rows(row, k), to=book.results,
                          setting="seed", preset="paper", num_classes=k, img_size=224)

# %%
M, G = 1e6, 1e9
shown = {("parameters (M)", "1000 classes"): table.params_1000 / M,
         ("parameters (M)", "study"): table.study_params / M,
         ("parameters (M)", "10 classes"): table.params_10 / M,
         ("GMAC", "1000 classes"): table.macs_1000 / G, ("GMAC", "study"): table.study_macs / G,
         ("GMAC", "10 classes"): table.macs_10 / G}
pd.DataFrame(shown).set_axis(table.model).round(4)

# %% [markdown]
# Does our count agree with what was printed, within the rounding of the print?

# %%
off = pd.DataFrame({"parameters": table.params_1000 / table.study_params - 1,
                    "multiply-adds": table.macs_1000 / table.study_macs - 1}).set_axis(table.model)
off.map("{:+.2%}".format)

# %% [markdown]
# What we see:
#
# - **The six transformers agree**, to one unit of the last digit that was printed; not all of its digits are rounded as
#   usual. Our count for softmax is {value}`02_backbone:table.softmax.macs_fvcore.c1000|.4f G` where the study
#   prints {value}`study-2022/11_cost:cost.softmax.macs_fvcore|.2f G`. The column called FLOPS is a count of
#   multiply-adds.
# - **They agree for 1,000 classes**, though the study's task has 10. The classifier alone makes the difference
#   between {value}`02_backbone:table.softmax.params.c1000|,.0f` and
#   {value}`02_backbone:table.softmax.params.c10|,.0f`.
# - **ResNet-50 is the odd one out.** The study prints {value}`study-2022/11_cost:cost.resnet50.macs_fvcore|.2f G`,
#   fvcore counts {value}`02_backbone:table.resnet50.macs_fvcore.c1000|.2f G`. We do not know how the printed figure
#   came about.
# - Softmax is the dearest transformer and Fastformer the cheapest. But the whole range between them is the share of
#   mixing seen above: about a quarter.
#
# The agreement says that we built the same models. It does not say that these models are what their papers describe.
# They are not: windows that never shift, a Linformer that is quadratic after all, an XCA without its norms. The
# default setting of this book, `faithful`, follows the papers. Each mechanism chapter shows what the difference is,
# and chapter 11 has the costs of the faithful models.
#
# ```{admonition} What we may and may not conclude
# :class: important
# Multiply-adds are a property of the model. They are exact, and the same on every device. They are not time. Chapter
# 12 measures time, and the order changes.
# ```
#
# ## Exercises
#
# ````{exercise} The share of mixing
# :label: ex-backbone-share
#
# Write `mixing_share(tokens, dims, depths)`: the share of softmax mixing in all multiply-adds of the blocks (mixing,
# projections, MLP) of a pyramid. All three arguments have one number per stage. Then compare with the table above.
# Why is it not quite the same?
# ````

# %% tags=["skip-execution"]
def mixing_share(tokens, dims, depths):
    ...

check("backbone.mixing_share", mixing_share)

# %% [markdown]
# ````{solution} ex-backbone-share
# :class: dropdown
#
# A block costs $2N^2C$ for mixing and $4NC^2 + 8NC^2$ for the rest.
#
# ```python
# def mixing_share(tokens, dims, depths):
#     stages = list(zip(tokens, dims, depths))
#     mixing = sum(n * 2 * N**2 * C for N, C, n in stages)
#     rest = sum(n * 12 * N * C**2 for N, C, n in stages)
#     return mixing / (mixing + rest)
#
# check("backbone.mixing_share", mixing_share)
# ```
#
# The table counts the stem, the patch merges and the classifier too, so its share is a little smaller.
# ````
#
# ````{exercise} Merge patches
# :label: ex-backbone-merge
#
# Write `patch_merge(x, grid)` that lays the four tokens of each 2 x 2 square side by side: from $(B, N, C)$ to
# $(B, N/4, 4C)$. Tokens are row-major: one row of the grid after the other. The grid `(H, W)` need not be square.
# Predict first: what goes wrong with a plain `x.reshape(B, N // 4, 4 * C)`?
# ````

# %% tags=["skip-execution"]
def patch_merge(x, grid):
    ...

check("backbone.patch_merge", patch_merge)

# %% [markdown]
# ````{solution} ex-backbone-merge
# :class: dropdown
#
# A plain reshape joins four tokens of the *same row*. The neighbour below lies $W$ tokens further on.
#
# ```python
# def patch_merge(x, grid):
#     (H, W), (B, N, C) = grid, x.shape
#     squares = x.view(B, H // 2, 2, W // 2, 2, C).transpose(2, 3)
#     return squares.reshape(B, N // 4, 4 * C)
#
# check("backbone.patch_merge", patch_merge)
# ```
# ````
#
# **An open question.** The control `none` keeps stem, merges and the mean, which all mix neighbours. What would a
# control look like in which no token ever meets another, and what could it still learn about a brain slice?
#
# ## Quiz
#
# ```{dropdown} 1. From stage 1 to stage 2: what happens to $N$, to $C$, and to the cost $8NC^2$ of an MLP?
# $N$ falls to a quarter and $C$ doubles, so $NC^2$ stays the same. All MLPs of the pyramid cost alike.
# ```
#
# ```{dropdown} 2. Why does the mixing of softmax fall so fast from stage to stage?
# $2N^2C$: a sixteenth times two, that is an eighth at each merge.
# ```
#
# ```{dropdown} 3. Linformer with r = N/8 costs a quarter of softmax's mixing. Is it linear?
# No. $4rNC$ with $r = N/8$ is $\tfrac12 N^2C$. Doubling the image side still costs sixteen times as much. A quarter
# is a constant, not a complexity.
# ```
#
# ```{dropdown} 4. Two models have the same parameters and multiply-adds. Do they take the same time?
# Not in general. Time depends on how the arithmetic is laid out, on memory, and on the software {cite}`dehghani2022`.
# ```
#
# **Three misconceptions**
#
# - *"FLOPs and MACs are the same."* One multiply-add is two floating-point operations. Tables mix them freely; ask
#   which.
# - *"O(NC) is all that the layer costs."* The projections cost $O(NC^2)$, and in this pyramid that is more.
# - *"A model with less mixing is a worse model."* That is a question for a measurement, and for the control `none`.
#
# ## Where the study and its sources differ from what is here
#
# - The pyramid, its figure, the equations and the cost columns of the study are those of {cite}`fair2022`, which it
#   does not cite.
# - The study calls its softmax model a Vision Transformer with a class token. The model has no class token, and it is
#   not the ViT of {cite}`dosovitskiy2021`.
# - `xca` in this pyramid is not the whole XCiT {cite}`elnouby2021xcit`, and `window` is not the whole Swin
#   {cite}`liu2021swin`: those are designs of their own. Their names would promise too much.
#
# ## Further reading
#
# - {cite}`fair2022`: the comparison whose backbone this is.
# - {cite}`wang2021pvt,liu2021swin`: pyramids for transformers, and why.
# - {cite}`yu2022metaformer`: how far a transformer gets when mixing is just averaging.
# - {cite}`xiao2021`: what a convolutional stem does.
# - {cite}`tay2022survey`: a map of efficient transformers.
