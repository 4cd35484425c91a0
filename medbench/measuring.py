"""What the commands measure: costs, latency, other people's layers, growing sizes, other runtimes.

What lives here, top to bottom: one function a command. Each takes models or names that `commands.py` has checked and
returns rows to be printed; with a chapter named it also records, each group as soon as it is measured.
"""

from __future__ import annotations

import functools
import itertools
import sys
import tempfile
from collections.abc import Container
from pathlib import Path

import torch

from . import cost as counting
from . import latency as protocol
from . import records, results
from .config import ALL_MODELS
from .data import to_input
from .machine import resolve_device, slug
from .models import build_model, input_size
from .rows import finding

MEMORY = "memory"            # a part of `scaling` that is not timed: the peaks of layers


# --------------------------------------------------------------------------------------------- costs
def cost(models: dict, batch: int, chapter: str | None, device: str = "auto") -> list[dict]:
    """What each model costs, one row each; its records if a chapter is named."""
    rows = []
    for name, model in models.items():
        costs = counting.profile(model, input_size(model, batch))
        rows.append({"model": name, "params": costs.params, "macs": costs.macs, "macs_fvcore": costs.macs_fvcore,
                     "flops": costs.flops, "mixing_macs": costs.mixing_macs,
                     "activation_memory_byte": 4 * costs.activation_elements})
        if chapter:
            results.record(f"cost.{name}", costs, to=results.here(chapter, device), **_about(model.config))
    return rows


def latency(models: dict, batch: int, rounds: int, seconds: float, device: str, chapter: str | None) -> list[dict]:
    """How long each model takes, one row each, and on standard error what may be concluded."""
    to = results.here(chapter, device) if chapter else None
    first = next(iter(models.values()))
    found = protocol.compare(models, input_size(first, batch), rounds=rounds, seconds=seconds,
                           device=device)
    print(found.text, file=sys.stderr)
    if to:
        for name in found:
            results.record(f"latency.{name}", found[name], to=to, **_about(first.config))
        own = [row for row in found.rows() if "model" not in row]
        results.record("latency.run", own, to=to, **_about(first.config))
    return found.frame().to_dict("records")


def memory(models: dict, device: str, to: Path | None) -> list[dict]:
    """Peak memory of each model for one image, one row each."""
    rows = []
    for name, model in models.items():
        found = protocol.peak_memory(model, input_size(model), device=device)
        if to:
            results.record(f"latency.{name}", found, to=to, preset=model.config.preset)
        rows.append({"model": name, **{row["quantity"]: row["value"] for row in found.rows()}})
    return rows


def energy(models: dict, device: str, seconds: float, to: Path | None, batch: int = 64) -> list[dict]:
    """Joule for an image of each model, one row each, null with the reason where no counter can be read.

    Args: `seconds` of each of three windows of work.
    """
    place, rows = resolve_device(device), []
    for name, model in models.items():
        x = torch.randn(input_size(model, batch), generator=torch.Generator().manual_seed(0)).to(place)
        found = protocol.energy_per_image(model.eval().to(place), x, seconds, device=device)
        model.cpu()
        if to:
            results.record(f"latency.{name}", found, to=to, preset=model.config.preset)
        rows.append({"model": name, "joule": found.joule, "reason": found.reason})
    return rows


def self_test(models: dict, batch: int, comparisons: int, rounds: int, seconds: float, device: str,
              chapter: str | None) -> list[dict]:
    """How often the protocol calls a model different from itself, one row a model; the sentence on standard error."""
    from .latency import selftest
    to, rows = results.here(chapter, device) if chapter else None, []
    for name, model in models.items():
        found = selftest.self_test(model, input_size(model, batch), comparisons=comparisons,
                                   rounds=rounds, seconds=seconds, device=device)
        print(found.text, file=sys.stderr)
        if to:
            results.record(f"selftest.{name}", found, to=to, **_about(model.config))
        counts = {"not_judged": (selftest.NOT_JUDGED,), "tied": ("tie",), "inconclusive": ("inconclusive",),
                  "different": selftest.FALSE}
        rows += [{"model": name, "machine": kind, "comparisons": found.count(kind),
                  **{column: found.count(kind, *verdicts) for column, verdicts in counts.items()},
                  "rate_at_most": found.bound(kind)} for kind in selftest.KINDS]
    return rows


def peers(mechanisms, batches, seconds: float, chapter: str | None) -> list[dict]:
    """Our layers beside other people's, one row a contest; a note on standard error for each peer that is missing."""
    from . import contests
    from . import peers as others
    for peer in others.PEERS:
        if peer.mechanism in mechanisms and not others.installed(peer):
            print(f"{peer.name}: not installed; pip install .[peers]", file=sys.stderr)
    to, rows = results.here(chapter, "cpu") if chapter else None, []
    for contest in contests.contests(mechanisms, tuple(batches), seconds=seconds, device="cpu"):
        rows.append(contest.row())
        done = (str(rows[-1][key]) for key in ("mechanism", "peer", "shape", "batch", "dtype", "pass", "verdict"))
        print(" ".join(done), file=sys.stderr)
        if to:
            results.record(f"peers.{contest.peer.mechanism}.{slug(contest.peer.name)}", contest, to=to)
    found = contests.standings(rows)
    print("\n".join(standing["text"] for standing in found), file=sys.stderr)
    if to:
        results.record("peers", found, to=to)
    return rows


def throughput(names, preset: str, batch: int, seconds: float, chapter: str | None) -> list[dict]:
    """Our training loop beside timm's, one row a model and loop."""
    from .throughput import race
    to, rows = results.here(chapter, "cpu") if chapter else None, []
    for name in names:
        found = race(name, preset, batch, seconds=seconds)
        rows += found.lines()
        if to:
            results.record(f"throughput.{preset}.{name}", found, to=to)
    return rows


def scaling(parts, seconds: float, device: str, again: bool, chapter: str | None) -> list[dict]:
    """Times at growing sizes, one row a contender and size, each size recorded as it is done; sizes that the file has
    are not timed again. What may be concluded goes to standard error, and into the file as sentences."""
    from . import crossing, layers
    from . import scaling as growing
    to, rows = results.here(chapter, device) if chapter else None, []
    old = records.read(to).records if to and to.exists() and not again else []
    for part in parts:
        if part == MEMORY:
            rows += _peaks(old, device, to)
            continue
        points = growing.recorded(old, part)
        for step in _steps(part, points, seconds, device):
            points = [p for p in points if p.at != step[0].at] + step
            print(crossing.summary(step), file=sys.stderr)
            if to:
                _record_all(part, crossing.rows(step), to)
        order = (*ALL_MODELS, layers.WRITTEN_OUT)
        points.sort(key=lambda p: (p.at, order.index(p.name)))
        if part == "tokens":
            for found in [c for reference in ("softmax", layers.WRITTEN_OUT)
                          for c in crossing.crossovers(points, reference)]:
                print(found.text, file=sys.stderr)
                if to:
                    _record_all(part, {found.name: found.rows()}, to)
        rows += crossing.table(points).to_dict("records")
    return rows


def _steps(part: str, done: list, seconds: float, device: str):
    """The steps of one part that are not done."""
    from . import layers
    from . import scaling as growing
    options = {"done": done, "seconds": seconds, "device": device}
    if part == "tokens":
        return layers.over_tokens(tokens=growing.TOKENS, **options)
    if part == "sizes":
        return growing.sizes(lambda name, px: build_model(name, img_size=px), ALL_MODELS, **options)
    models = {name: build_model(name) for name in ALL_MODELS}
    shape = input_size(models["softmax"])
    if part == "threads":
        return growing.threads(models, shape, growing.default_sizes("threads"), **options)
    return growing.batches(models, shape[1:], **options)


def _peaks(old: list, device: str, to: Path | None) -> list[dict]:
    """Memory of layers against tokens, one row each; what is recorded is not measured again."""
    from . import layers
    from . import scaling as growing
    known = {(r.model, r.context["tokens"], r.quantity): r.value for r in old if r.quantity in ("counted", "grown")}
    done = [key[:2] for key, value in known.items() if key[2] == "grown" and value is not None]
    for found in layers.peaks(tokens=growing.TOKENS, done=done, device=device):
        if to:
            _record_all(MEMORY, found, to)
        known |= {(name, row["context"]["tokens"], row["quantity"]): row["value"]
                  for name, rows in found.items() for row in rows}
    pairs = sorted({key[:2] for key in known}, key=lambda key: (key[1], layers.LAYERS.index(key[0])))
    return [{"part": MEMORY, "model": name, "at": N, "counted_byte": known[name, N, "counted"],
             "grown_byte": known[name, N, "grown"]} for name, N in pairs]


def _record_all(part: str, found: dict[str, list[dict]], to: Path) -> None:
    for name, rows in found.items():
        results.record(f"{part}.{name}", rows, to=to)


# --------------------------------------------------------------------------------------------- runtimes
def runtimes(models: dict, weights: dict, batches, names, dtypes, seconds: float, images: int, chapter: str | None,
             again: Container[str] = (), device: str = "cpu") -> list[dict]:
    """All models in every runtime and dtype, then each in its best one; one row a model and cell.

    Every group is recorded as soon as it is measured, and one that is recorded for this device, these models and these
    weights is not measured again, but where its runtime is among `again`. `weights` {model: what its weights are}.
    """
    from . import runtimes as every
    seen = functools.cache(lambda: _phantoms(models, images))               # not drawn if all groups are recorded
    to, table = results.here(chapter, device) if chapter else None, []
    about = {name: _about(model.config) | {"weights": weights[name]} for name, model in models.items()}

    def measured(group: dict, chosen: dict | None, runtime: str, dtype: str, batch: int, known: dict, workdir: str):
        if len(only := set((chosen or {}).values())) == 1:
            [one] = only
            return every.alone(one, dtype, batch, {name: known[one][name] for name in group})
        asked = seen() if batch == max(batches) else {}                     # more images at a time take less time
        return every.measure(group, runtime, dtype, input_size(next(iter(group.values())), batch), seconds=seconds,
                             chosen=chosen, device=device, workdir=workdir, **asked)

    def rows(runtime: str, dtype: str, batch: int, known: dict, workdir: str) -> dict:
        chosen = every.best(table, batch, dtype) if runtime == every.BEST else None
        group = {name: model for name, model in models.items() if chosen is None or name in chosen}
        title = f"{runtime} {dtype} b{batch}"
        found = None if runtime in again or not to else _recorded(to, runtime, dtype, batch, group, about, chosen)
        if not group or found is not None:
            print(f"{title}: {'recorded already; --again measures it anew' if group else 'nothing to choose from'}",
                  file=sys.stderr)
            return found or {}
        return _kept(measured(group, chosen, runtime, dtype, batch, known, workdir), to, about, title)
    with tempfile.TemporaryDirectory() as folder:
        for batch, dtype in itertools.product(batches, dtypes):
            known = {}                                       # rows by runtime
            for runtime in (*names, *([every.BEST] if len(names) > 1 else [])):
                known[runtime] = rows(runtime, dtype, batch, known, f"{folder}/b{batch}")
                table += every.lines(runtime, dtype, batch, known[runtime])
    for line in every.ranking(table):
        print(f"{line['runtime']} {line['dtype']} b{line['batch']}: {line['order'] or line['reason']}", file=sys.stderr)
    return table


def untrained(models: dict) -> dict[str, str]:
    """What the weights of freshly built models are, by name."""
    return {name: f"untrained, seed {model.config.seed}" for name, model in models.items()}


def _phantoms(models: dict, count: int) -> dict:
    """`images` on which decisions are compared, as the models take them, and what each model has `decided` for."""
    from . import export, phantom
    config = next(iter(models.values())).config
    if not count:
        return {}
    drawn = phantom.generate(None, range(count), seed=0, img_size=config.img_size[0], prior="uniform")
    images = to_input(drawn.images, config.in_chans)
    return {"images": images, "decided": {n: export.decisions(model.eval(), images) for n, model in models.items()}}


def _kept(found, to: Path | None, about: dict, title: str) -> dict:
    """Say on standard error what may be concluded of a `Group`, and record it; its rows by model."""
    from . import runtimes as every
    print(f"{title}: {found.text}", file=sys.stderr)
    name = f"runtime.{found.runtime}.{found.dtype}"
    for model, rows in found.rows.items() if to else ():
        rows = [row | ({"context": row["context"] | about[model]} if row["quantity"] == "runtime" else {})
                for row in rows]
        results.record(f"{name}.{model}", rows, to=to)
    [placed] = every.ranking(found.lines())
    rows = [finding(found.text), finding(placed["order"], "order", reason=placed["reason"])]
    rows = [row | {"suffix": f"b{found.batch}", "context": {"models": sorted(found.rows)}} for row in rows]
    if to:
        results.record(name, rows, to=to)
    return found.rows


def _recorded(to, runtime, dtype, batch, group, about, chosen) -> dict | None:
    """The rows of a group that was recorded for these models and weights; None if any is missing or was not there."""
    from . import runtimes as every
    records = results.read(to).records if to.exists() else []
    found = every.recorded(records).get((runtime, dtype, batch), {})
    found = {name: found.get(name, []) for name in group}
    done = {name: {row["quantity"]: row for row in rows} for name, rows in found.items()}
    if chosen and any(rows.get("runtime", {}).get("text") != chosen[name] for name, rows in done.items()):
        return None                                          # another runtime has become the best since
    whole = all("runtime" in rows and about[name].items() <= rows["runtime"]["context"].items()
                and not (rows["latency"]["reason"] or "").startswith("not installed") for name, rows in done.items())
    names = [r.context.get("models") for r in records if r.name == f"runtime.{runtime}.{dtype}.order.b{batch}"]
    return found if whole and names == [sorted(group)] else None


def _about(config) -> dict:
    return {"preset": config.preset, "setting": config.setting, "num_classes": config.num_classes,
            "img_size": list(config.img_size)}
