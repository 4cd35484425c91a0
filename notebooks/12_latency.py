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
# # Latency
#
# ```{admonition} In this chapter
# :class: note
# **You will learn** to time models so that a difference can be believed, to see how far each is from what the device can
# do at most, and to put your own device beside those of this book.
# **You need** chapter 11 for multiply-adds and bytes.
# **Time**: 30 minutes, exercises included; the timing itself takes a few minutes of an otherwise idle machine.
#
# Tables, figures and the sentences beside them are computed, and speak of the device that ran the chapter or of the one
# that they name. The text in between was written for the edition's device: two cores of a server processor, no GPU.
# ```

# %% tags=["parameters"]
profile = "laptop"
device = "auto"
seed = 0

# %%
import functools

import pandas as pd

import medbench as mb
from medbench import measuring
from medbench.book import start, timings
from medbench.book.exercises import check
from medbench.book.orders import orders

book = start("12_latency", globals())
names = mb.config.ALL_MODELS

# %% [markdown]
# ## The claim, and what would make it true
#
# The study {cite}`study2022` gives seconds at batch 1 on three devices: for softmax attention
# {value}`study-2022/12_latency:latency.softmax.xeon` on a Xeon processor with all cores,
# {value}`study-2022/12_latency:latency.softmax.a100` on an A100. It concludes that the mechanisms rank differently from
# their FLOPs, which is true, and that efficient ones are quicker, which may be.
#
# What would make such figures believable? The device named in full, with threads, versions and number type. Models timed
# in turns, not one after the other. A spread. A control: the same model twice. And a look at what the device can do at
# most, for a figure a hundred times off stands out there.
#
# ```{admonition} Predict before you run
# :class: tip
# Softmax attention in this pyramid needs a third more multiply-adds than the cheapest mechanism. At batch 1 on this
# device: is it a third slower? And ResNet-50, with twice the multiply-adds of softmax: is it twice as slow?
# ```
#
# ## The device

# %%
here = mb.results.machine(book.device)
timings.machine_page(here)

# %% [markdown]
# This goes into every record, with the versions of the libraries and the commit. How busy the machine is goes there too:
# on a shared machine a neighbour can make everything slower by a factor, and then even the quickest run is wrong.
#
# What can the device do at most? Two numbers: the rate of large products, and the bandwidth of the memory. On a CPU
# matrices are multiplied in one library and convolutions are computed in another. Either may use the processor better, so
# both are timed and the fastest counts. A ceiling that a model can break through is none.

# %%
ceilings = mb.latency.ceilings(book.device, seconds=min(6.0, book.profile.latency_seconds))
mb.results.record("device", ceilings, to=book.results)
pd.DataFrame([{"ceiling": row["quantity"], "of": row["context"].get("dtype", "copy"), "value": row["value"] / 1e9,
               "unit": "G" + row["unit"], "repetitions": row["n"]} for row in ceilings.rows()]).round(1)

# %% [markdown]
# No model can run faster than its products at the first rate, or than its bytes at the second.
#
# ## The timing
#
# Single calls are timed with Python's `timeit`, after one that does not count. All models take turns, in a new random
# order each round. One of them takes part twice under two names: what separates its two series is noise, and differences
# within it are ties. Before anything is timed, each model is compared with itself in float64: a wrong model is not timed.
# Rounds during which others used the processors are marked and repeated; they stay in the records and are left out of the
# medians.
#
# What comes out is a ratio: a model's time over that of softmax attention, with an interval over the rounds. It is held
# against the *noise floor*: the largest difference that the model with two names makes look real, and at least
# {defined}`1 %`.
#
# - *Faster* or *slower*: the whole interval lies beyond the floor.
# - *Tie*: the whole interval lies within the floor, on both sides of one.
# - *Inconclusive*: it crosses the edge of the floor, so neither is shown. Or fewer than six rounds were quiet: five have no
#   interval of {defined}`95 %`.
#
# Can this be trusted? There is one case whose answer everybody knows: a model against itself. It was compared with itself
# a hundred times, and in every second comparison another process multiplied matrices beside it. Each verdict "faster" or
# "slower" is a false one. The intervals are those of {defined}`99 %`; the last two rows take those of
# {defined}`95 %`, as all other tables do. A comparison with too few quiet rounds is not judged, and does not count as right.

# %%
trust = timings.recorded("12_selftest", book.device, needed=("*.usual_false_call_bound.all",))
mb.results.record("selftest", timings.said(trust, "self_test"), to=book.results)
timings.selftest_page(trust)

# %% [markdown]
# {sentence}`12_latency:selftest.conclusion` *Inconclusive* is no false call: in the few seconds of one comparison the noise
# was larger than the differences that count as ties. Now the models.

# %%
preset = book.profile.cost_preset
models = {name: mb.build_model(name, preset=preset) for name in names}
shape = (models["softmax"].config.in_chans, *models["softmax"].config.img_size)
times = {batch: mb.latency.compare(models, (batch, *shape), rounds=book.profile.latency_rounds, seed=book.seed,
                                   seconds=book.profile.latency_seconds, device=book.device)
         for batch in book.profile.latency_batches}
timings.record_times(times, to=book.results, preset=preset)
print("\n".join(f"Batch {batch}: {found.text}" for batch, found in times.items()))

# %%
first = times[book.profile.latency_batches[0]]
timings.latency_page(first)

# %% [markdown]
# {sentence}`12_latency:latency.run.conclusion.b1`
#
# A ratio of one means: as quick as softmax attention. No percentile is shown that the number of calls cannot carry.
#
# An interval covers the rounds of one run, and not another day. The same ratio, ResNet-50 to softmax attention for one image
# in eager float32, was {value}`12_latency:latency.resnet50.latency_ratio.b1|±` here and
# {value}`edition/12_runtimes:runtime.eager.float32.resnet50.latency_ratio.b1|±` in a run for the section on runtimes below.
# Where two such intervals are apart, the machine was in another state. A verdict is firm where several runs agree on it.
#
# What of the predictions? If time followed multiply-adds, the cheapest mechanism, Fastformer, would take 0.75 of softmax
# attention's time and ResNet-50 twice as long. Fastformer takes
# {value}`12_latency:latency.fastformer.latency_ratio.b1|±`, ResNet-50
# {value}`12_latency:latency.resnet50.latency_ratio.b1|±`: its convolutions get more arithmetic done in the same time.
#
# The table shows summaries. Here is every single call.

# %% mystnb={"image": {"alt": "Every timed call at batch 1 as a tick, one row a model, with the median as a marker; rows are one or two bands with single calls far from them."}}
raw = pd.DataFrame([{"model": t.name, "samples": [1000 * s for s in t.samples]} for t in first.timings.values()])
mb.plots.samples(raw);

# %% [markdown]
# Where a row falls into two bands, the machine ran at two speeds; that makes intervals wide, and it is why ratios are taken
# within a round. Ticks far to the right are single slow calls, from whatever else the machine did. The median does not mind
# them; a mean would.
#
# ## The models that were scored
#
# These were the large models. Chapter 10 trained small ones. How long do those take? The same protocol, one image at a time.

# %%
small = {name: mb.build_model(name, preset=book.profile.preset) for name in names}
little = (small["softmax"].config.in_chans, *small["softmax"].config.img_size)
quick = mb.latency.compare(small, (1, *little), rounds=book.profile.latency_rounds, seed=book.seed,
                           seconds=book.profile.latency_seconds, device=book.device)
timings.record_times({1: quick}, to=book.results, prefix="trained", preset=book.profile.preset)
print(quick.text)
timings.latency_page(quick)

# %% [markdown]
# {sentence}`12_latency:trained.run.conclusion.b1`
#
# A small model on few tokens is a chain of short operations. What each of them takes to start weighs more than its
# arithmetic, so a mechanism of many steps pays for each.
#
# ## What else does it cost?
#
# The median is the time of a warm model. A device has to start it first, and needs memory and power for it. How long
# does a new process take from its first import to its first answer? How far does its memory rise above the weights
# for one image? And how much energy does an image take?

# %%
build = functools.partial(mb.build_model, "softmax", preset=preset)
cold = mb.latency.cold_start(build, (1, *shape), device=book.device)
mb.results.record("latency.softmax", cold, to=book.results, preset=preset)
memory = pd.DataFrame(measuring.memory(models, book.device, book.results)).set_index("model")
energy = pd.DataFrame(measuring.energy(models, book.device, book.profile.latency_seconds / 20, book.results))
print("Energy:", energy.reason.dropna().max() or "measured, see the records")
(memory.dropna(axis=1, how="all") / 2**20).astype(float).round(1).add_suffix(" (MiB)")

# %% [markdown]
# With softmax attention, a new process has its first answer after {value}`12_latency:latency.softmax.cold_total.b1|.1f`.
# Of that, {value}`12_latency:latency.softmax.cold_import_torch.b1|.1f` is the import of PyTorch, and its second answer takes
# {value}`12_latency:latency.softmax.cold_second_call.b1|.2f`. A program that is started for each image pays the first
# number, and no choice of attention changes it. A CPU has no counter of its energy that every user may read, so there the
# figure is missing, and the records say why.
#
# ## Fewer multiply-adds, less time?
#
# If time followed arithmetic, the points would lie on a line through the origin.

# %% mystnb={"image": {"alt": "Median latency at batch 1 against multiply-adds, one point a model with its interval; the ResNet lies far to the right without being as far up, the mechanisms form a cloud on the left."}}
points = first.frame().merge(mb.cost.table(models, (1, *shape)), on="model")
points["gmacs"] = points.macs / 1e9
mb.plots.time_against_macs(points);

# %% [markdown]
# Look for the points that leave the line: above it a model takes more time than its arithmetic suggests, below it less.
# Performer lies above, the ResNet below. What a count leaves out: the memory traffic of many small steps, the start of each
# operation, and how well each operation is implemented. Convolutions have had the most work put into them.
#
# ## How far from the limit?
#
# The **roofline** {cite}`williams2009` is the least time under the two ceilings: the larger of arithmetic at the full
# rate and bytes at the full bandwidth. *Bytes* are all weights, once a batch, plus what the products read and write, with
# attention as one operation. The share tells how much of the measured time the device's limit explains. The figure shows
# the larger batch; its horizontal axis, the *arithmetic intensity*, is the arithmetic done for each byte moved.

# %%
costs = {name: mb.cost.profile(model, (1, *shape)) for name, model in models.items()}
roofs = timings.roofs(times, costs, ceilings)
for (name, _), roof in roofs.items():
    mb.results.record(f"latency.{name}", roof, to=book.results, preset=preset)
timings.roof_page(roofs)

# %% mystnb={"image": {"alt": "Roofline of this device on logarithmic axes: a slanted line for the memory and a flat one for the arithmetic; all models lie below it, close together."}}
table = timings.roof_points(roofs, batch=book.profile.latency_batches[-1])
mb.plots.roofline(table, {"float32": ceilings.flops["float32"]}, ceilings.bandwidth);

# %% [markdown]
# At batch 1 softmax attention reaches {value}`12_latency:latency.softmax.roofline_share.b1|.0%` of what the device could
# do, ResNet-50 {value}`12_latency:latency.resnet50.roofline_share.b1|.0%`. Neither arithmetic nor memory at full speed
# explains the rest.
#
# ## Which order do you get?
#
# All of this was PyTorch as it comes, in float32. Nobody would ship that to a hospital: a model is compiled or exported,
# and its numbers are made smaller. Does the order of the models survive?
#
# ```{admonition} Predict before you look
# :class: tip
# In eager float32 ResNet-50 lies behind softmax attention. Where would you expect it to overtake? And is int8, with
# a quarter of the bytes, the quickest of all?
# ```
#
# `python -m medbench runtimes` brings every model into every runtime: eager PyTorch, `torch.compile`, ONNX Runtime and
# OpenVINO, in float32 (fp32), bfloat16 (bf16) and int8 (dynamic quantisation: weights in int8, activations rounded on
# the way). Nothing is timed that does not agree with the model in float64, within what the number type allows. All
# models of one runtime were timed in one interleaved run. A cell shows the rank, and the median in milliseconds. The
# rank is one more than the number of models that are faster beyond doubt, so two models with the same rank may still
# differ, and neighbouring ranks need not. It compares models round by round, so it can differ from the order of the
# medians, which move when the machine changes its speed. The rows *best* give each model the runtime that was fastest for
# it.

# %%
order = orders(book.device, batches=(1, 16))
for batch in (1, 16):
    mb.results.record("runtimes", order.row(batch), to=book.results)
order.page(1)

# %%
print("\n".join(order.missing()) or "Every runtime was there.")

# %% [markdown]
# {sentence}`12_latency:runtimes.conclusion.b1`
#
# Read the factors between runtimes as rough ones. Each row was timed in a run of its own, and the machine changed between
# runs: softmax attention in eager float32 took {value}`12_latency:latency.softmax.latency.b1|.0f` ms for one image above and
# {value}`edition/12_runtimes:runtime.eager.float32.softmax.latency.b1|.0f` ms here. Within a row the models were timed side by
# side. There the order changes less: XCA and Fastformer lead, softmax attention and Performer are mostly the last of them. And
# the predictions? The sentence says where ResNet-50 overtakes softmax attention, if anywhere, and which number type is the
# quickest. int8 has a quarter of the bytes, but before each layer the range of its activations has to
# be found and they have to be rounded: fewer bytes are no promise.
#
# Sixteen images at a time:

# %%
order.page(16)

# %% [markdown]
# {sentence}`12_latency:runtimes.conclusion.b16`
#
# What does a runtime cost before the first answer, and does it still compute the same model? For sixteen images at a
# time, the worst model of each row: its largest deviation from float64 as a share of the largest output, the share of 500
# phantoms on which it decides as in eager float32, the time to export or compile it, and its first call. The weights are
# untrained, so logits lie close together and decisions tip over more easily than those of a trained model would.

# %%
order.checks_page(16)

# %% [markdown]
# How near to the limit does each model come in its best runtime? The limits are the best that were measured before any of
# these groups. (Times of different runs differ on a shared machine, so compare within a table, not between tables.)

# %%
pd.concat({f"{batch} at a time": order.best_page(batch) for batch in (1, 16)})

# %% mystnb={"image": {"alt": "Roofline of the device with each model in its best runtime at batch 16: filled markers for float32 below the lower flat line, open ones for bfloat16 between the two; those of ResNet-50 are the highest."}}
mb.plots.roofline(order.points(batch=16), *order.ceilings());

# %% [markdown]
# Filled markers belong under the lower roof, open ones under the upper. A model of convolutions alone, such as ResNet-50,
# comes nearer to a roof that was measured with a convolution. What lies between a mechanism and the roof is in no count
# of products, probably softmax, GELU, normalisation and moving numbers between them. Performer, with its many
# exponentials, stays the farthest away.
#
# ## Where do they cross?
#
# At 224 px the first stage has 1,024 tokens. Is that many? An efficient mechanism has fewer multiply-adds from some number
# of tokens on. From which number on is it *faster*? Single layers of the first stage, 96 channels, were timed side by side
# with more and more tokens, until time or memory ran out.
#
# ```{admonition} Predict before you look
# :class: tip
# By multiply-adds Fastformer passes softmax attention first and Linformer and Performer last. Will the clock agree? In
# which direction will it move the crossovers?
# ```

# %% mystnb={"image": {"alt": "Time of a layer relative to fused softmax attention against the number of tokens, one falling line a mechanism and a flat rising one for softmax written out; below, for each of them the measured crossover with its interval and the one by multiply-adds."}}
growing = timings.recorded("12_scaling", book.device, needed=("tokens.*", "sizes.*", "batches.*"))
mb.results.record("crossing", timings.said(growing, "conclusion", reference="softmax"), to=book.results)
mb.plots.crossover(*timings.crossings(growing));

# %% [markdown]
# {sentence}`12_latency:crossing.conclusion`
#
# The largest sizes leave time for few rounds, so their intervals are wide, and some have no verdict.
#
# Open markers are where multiply-adds cross, filled ones where times do. A filled marker to the right of its open one
# means that the mechanism needs more tokens to pay off than its arithmetic promises. The line *softmax written out* forms
# the $N \times N$ matrix, as models did in 2022. Beside that one every mechanism looks better: part of the advantage that
# papers report disappears once softmax attention is one fused operation.
#
# And the memory? Counted first: the weights of the layer, its input, and the most that lives between its operations at one
# moment.

# %% mystnb={"image": {"alt": "Memory of a layer against the number of tokens, logarithmic axes: softmax written out rises twice as steeply as all others, which rise alike, Performer above them."}}
mb.plots.curves(timings.memory_lines(growing), "tokens", "memory_mib", log=True, xlabel="number of tokens $N$",
                highlight="softmax");

# %% [markdown]
# Written out, softmax attention needs memory for $2hN^2$ numbers, before and after the softmax; fused, it needs no more
# than the others. So memory is saved only beside code that forms the matrix. Performer needs more than the rest: the
# features of all queries and keys, $2Nrh$ numbers. Is the count right? Here is what was measured: by how many MiB memory
# rose above weights and input while a layer ran, on a CPU that of a new process, and in brackets what was counted between
# its operations.

# %%
timings.memory_page(timings.recorded("12_scaling", book.device, needed=("memory.*",)))

# %% [markdown]
# On a CPU some MiB come on top everywhere, with few tokens nearly all there are: code that is loaded, and what libraries set
# aside for themselves. With many tokens the count tells who needs how much.
#
# Whole models at three image sizes, one image at a time; each cell is the time over that of softmax attention, with its
# interval:

# %%
print(timings.ran_out(growing, "sizes"))
timings.growth_page(growing, "sizes")

# %% [markdown]
# A layer of the first stage may have passed its crossover at 224 px; the later stages have far fewer tokens, and the
# model is the sum. An efficient mechanism is a tool for many tokens: at 448 px the first stage has 4,096.
#
# Do more images in one call change the order? Again the time over that of softmax attention, and a sign for the verdict:
# `+` faster, `-` slower, `=` a tie, `?` inconclusive.

# %%
print(timings.ran_out(growing, "batches"))
timings.growth_page(growing, "batches", signs=True)

# %% [markdown]
# And one thread instead of two, for one image?

# %%
timings.growth_page(timings.recorded("12_scaling", book.device, needed=("threads.*",)), "threads")

# %% [markdown]
# No mechanism that leads for one image falls behind for more of them, nor with one thread.
#
# ## Is our code the reason?
#
# A slow implementation would make a mechanism look bad. So each layer of this book was timed beside other people's layers
# of the same mechanism: timm's, PyTorch's own, packages from PyPI. Same shapes, same weights where they fit, outputs
# equal in float64, in interleaved rounds. The shapes are those of the first and the third stage, with one image
# and with sixteen, in float32 and bfloat16, forward and, with sixteen images, with the gradient.

# %%
others = timings.recorded("12_peers", book.device, needed=("*.mean_ratio.*",))
mb.results.record("peers", timings.said(others, "mean_ratio"), to=book.results)
timings.peers_page(others)

# %% [markdown]
# {sentence}`12_latency:peers.conclusion`
#
# Every contest, our time over theirs: `+` ours is faster, `-` slower, `=` a tie, `?` inconclusive. *grad*: forward and
# backward. A `*`: the package computes another function, so its row counts nowhere.

# %%
timings.contests_page(others)

# %% [markdown]
# A ratio of one is a tie. Softmax attention stands near one, since most sides call the same fused operation; it is slower
# where `nn.MultiheadAttention` takes an operator of its own for few tokens in bfloat16. Where ours is quicker, a product
# was done in another order: Linformer's $E(XW)$ as $(EX)W$, XCA's lengths divided out of the small matrix, and not of the
# long ones. In the third stage Linformer has as many projected tokens as tokens, so there the other order saves nothing.
# Windows and the whole pyramid with them gain nothing: linear layers take most of the time, and these are the same on both
# sides. So our code is not why a mechanism looks slow, as far as could be compared. For Performer and Fastformer this
# stays open, since their packages compute something else.
#
# ## Your device beside the others
#
# Every device that has run this chapter has a file of records. This figure shows all of them.

# %% mystnb={"image": {"alt": "Median latency at batch 1 of every model on every recorded device, logarithmic axis, one marker a device."}}
devices = timings.devices(batch=1)
mb.plots.latency(devices);

# %%
timings.everywhere(devices)

# %% [markdown]
# In milliseconds. To add yours: run `papermill notebooks/12_latency.ipynb out.ipynb -p device cuda` and build the book
# again; the appendix on devices says how, step by step.
#
# One GPU is there, an H100. What does it say of the mechanisms at batch 1?
# {sentence}`nvidia-h100-80gb-hbm3/12_latency:latency.run.conclusion.b1`
#
# There the five efficient mechanisms are slower, though all need fewer multiply-adds. Why? Softmax attention takes
# {value}`nvidia-h100-80gb-hbm3/12_latency:latency.softmax.latency.b1|.1f` for one image and
# {value}`nvidia-h100-80gb-hbm3/12_latency:latency.softmax.latency.b16|.1f` for sixteen. Sixteen times the arithmetic in
# about the same time: the arithmetic is not what takes the time. It reaches
# {value}`nvidia-h100-80gb-hbm3/12_latency:latency.softmax.roofline_share.b1|.1%` of the roofline at batch 1. The likely
# cause is the start of operations: fused softmax attention is one operation, Performer's features and sums are many.
#
# ## The study's seconds beside ours
#
# The study's CPU seconds were measured, it says, at batch 1 on all cores of a Xeon. How many images would this device
# process in that time, with its few cores?

# %%
study = mb.results.load()
study = study[(study.device == "study-2022") & study.name.str.endswith(".xeon")].set_index("model").value
ours = first.frame().set_index("model").latency_ms / 1000
beside = pd.DataFrame({"study, Xeon (s)": study, "this device (s)": ours.astype(float)}).dropna()
beside["images in the study's time"] = (beside.iloc[:, 0] / beside.iloc[:, 1]).round(0)
many = {"quantity": "images_in_its_time", "value": float(beside.loc["softmax"].iloc[2]), "unit": "1"}
mb.results.record("study.softmax", many, to=book.results)
beside.round(3)

# %% [markdown]
# In the time that the study gives for one image, this device processes about
# {value}`12_latency:study.softmax.images_in_its_time|.0f`. No server processor is that much slower. A batch of the order
# of a hundred images would explain it; then the column is not latency at batch 1. We cannot know, for neither type,
# threads nor versions are given.
#
# ```{admonition} Pitfalls
# :class: warning
# - MACs and FLOPs mixed up: a factor of two.
# - No synchronisation: on a GPU the clock stops before the work does.
# - Cold caches, or compilation, in the first calls.
# - Launch overhead at batch 1: the time to start operations, taken for the cost of arithmetic.
# - Zeros as input.
# - One thread as a library's default.
# - Channels-last on the model or the input, not on both.
# - Autocast's casts, counted or not.
# - Percentiles from few samples; the 99th needs about three hundred.
# - First all of A, then all of B.
# - Means without a spread.
# - Counters that do not know fused attention.
# - A large cache that holds all weights.
# ```
#
# ## What we may conclude
#
# - On this device, at these batches: what the verdicts say, for each runtime and number type by itself, and no more.
# - How a model is run can matter as much as which of these mechanisms is in it. Time both on your device, side by side.
# - One machine does not rank machines, and one runtime does not rank models.
# - A tie is a result.
#
# For research and teaching, not for clinical use.
#
# ## Exercises
#
# ````{exercise} Three bad benchmarks
# :label: ex-latency-flaws
#
# Each of these has one flaw. Which: `"synchronisation"`, `"order"`, `"percentile"`, `"zeros"` or `"units"`?
#
# **A.** A model on a GPU. `start = time()`, then `model(x)`, then `stop = time()`; a hundred times; the median is
# reported.
#
# **B.** A hundred calls of model one, then a hundred calls of model two, on a laptop that warms up meanwhile.
#
# **C.** Twenty calls of each of two models in turns; the 99th percentiles are compared.
# ````

# %% tags=["skip-execution"]
check("latency.flaws", {"A": ..., "B": ..., "C": ...})

# %% [markdown]
# ````{solution} ex-latency-flaws
# :class: dropdown
#
# ```python
# check("latency.flaws", {"A": "synchronisation", "B": "order", "C": "percentile"})
# ```
# ````
#
# ````{exercise} Which batch fills the device?
# :label: ex-latency-batch
#
# A model needs `macs` multiply-adds and moves `image_bytes` for each image, and reads `weight_bytes` once a batch. The
# device does `peak` FLOP/s and moves `bandwidth` byte/s. Write `batch_from_roofline(macs, weight_bytes, image_bytes,
# peak, bandwidth)`: the least batch at which arithmetic takes at least as long as memory, `math.inf` if there is none.
# ````

# %% tags=["skip-execution"]
def batch_from_roofline(macs, weight_bytes, image_bytes, peak, bandwidth):
    ...

check("latency.batch_from_roofline", batch_from_roofline)

# %% [markdown]
# ````{solution} ex-latency-batch
# :class: dropdown
#
# With batch $B$: $2B\,\text{macs}/\text{peak} \ge (\text{weights} + B\,\text{image})/\text{bandwidth}$.
#
# ```python
# import math
#
# def batch_from_roofline(macs, weight_bytes, image_bytes, peak, bandwidth):
#     gain = 2 * macs / peak - image_bytes / bandwidth
#     return max(1, math.ceil(weight_bytes / bandwidth / gain)) if gain > 0 else math.inf
#
# check("latency.batch_from_roofline", batch_from_roofline)
# ```
# ````
#
# **An open question.** A hospital's device sees one image every few seconds. Is the median the number that matters there?
# Which would you promise, and how many calls do you need to promise it?
#
# ## Quiz
#
# ```{dropdown} 1. Why does one model take part twice?
# What separates its two series is noise. Without it nobody knows how small a difference can be seen.
# ```
#
# ```{dropdown} 2. Two models have ratio 1.004 and an interval that leaves 1 out. Faster or tie?
# A tie, if the control differs from itself by as much.
# ```
#
# ```{dropdown} 3. A model reaches a small share of the roofline. Is its code bad?
# Not necessarily. At batch 1 the operations may be too small to fill the device.
# ```
#
# ```{dropdown} 4. Why random inputs?
# Zeros can be quicker, on some devices, than any real image.
# ```
#
# **Three misconceptions**
#
# - *"The quickest run is the true one."* Only on a machine that was quiet at least once.
# - *"Half the multiply-adds, half the time."* Only where arithmetic is the limit.
# - *"A benchmark of last year still holds."* New versions of a library change kernels, and with them the order.
#
# ## Further reading
#
# - {cite}`hoefler2015`: twelve ways to report performance honestly.
# - {cite}`mytkowicz2009`: how the order of linking changes a benchmark.
# - {cite}`williams2009`: the roofline.
# - {cite}`dao2022flashattention`: what counting memory traffic instead of arithmetic can do.
