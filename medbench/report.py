r"""Everything about one device in one go, within a budget of time, and to be gone on with.

What lives here, top to bottom: `Step`, one thing to measure; `plan`, what there is, the most important first;
`device_report`, which does it and keeps a diary; what the steps do; `summary`, one page.

A folder holds one result file a chapter, `<device>/<chapter>.json`, as `book/results/` does: copied there, they add a
column everywhere. Beside them lie the diary, from which the same command goes on, and the summary.
"""

from __future__ import annotations

import functools
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from . import config, cost, latency, measuring, records, results
from .book import timings
from .checks import in_range
from .export import DTYPES, RUNTIMES
from .files import environment, read_json, write_json
from .machine import device_name, resolve_device
from .models import build_model, input_size

DIARY, SUMMARY = "diary.json", "summary.md"
MOST_BYTE, MOST_FILES = 2_000_000, 8         # of a report in all
SAID = ("conclusion", "self_test", "mean_ratio")                     # records whose sentences stand in the summary
GPU_BATCHES = (1, 16, 64, 256)
SHARE = 12                                   # a step's timing takes this part of the budget at most
OVERHEAD = {"runtimes": 60.0, "compile": 240.0, "latency": 20.0}     # seconds around the timing, until some are known


@dataclass(frozen=True)
class Step:
    """One thing to measure: `run(seconds)` records it, timing for that long; `kind`: whose overhead it shares."""

    name: str
    kind: str
    seconds: float
    run: Callable[[float], object]


# --------------------------------------------------------------------------------------------- the plan
def plan(profile: config.Profile, device: str, budget: float) -> list[Step]:
    """What there is to measure on a device, the most important first.

    Costs; latency of the large models at every batch, with the device's limits; memory and energy; the small models;
    every runtime; the protocol's self-test; growing sizes; other people's layers (on a CPU).
    """
    gpu, seconds = resolve_device(device).type == "cuda", min(profile.latency_seconds, max(5.0, budget / SHARE))
    models = functools.cache(lambda preset: {name: build_model(name, preset) for name in config.ALL_MODELS})
    large, batches = profile.cost_preset, GPU_BATCHES if gpu else profile.latency_batches

    def times(preset: str, batch: int, dtype: str) -> Callable[[float], object]:
        return lambda s: _latency(models(preset), batch, dtype, profile, device, s)
    steps = [Step("costs", "costs", 5.0, lambda s: measuring.cost(models(large), 1, "11_cost"))]
    steps += [Step(f"latency {dtype} b{batch}", "latency", seconds, times(large, batch, dtype))
              for dtype in ("float32", "bfloat16") for batch in batches]
    steps += [Step("memory", "memory", 40.0, lambda s: _memory(models(large), device))]
    steps += [Step("energy", "energy", 8 * seconds, lambda s: _energy(models(large), device, s))] if gpu else []
    steps += [Step("small models b1", "latency", seconds, times(profile.preset, 1, "float32"))]
    return steps + _runtimes(models, large, batches, device, seconds) + _slow(models, device, gpu, seconds)


def _runtimes(models, preset: str, batches, device: str, seconds: float) -> list[Step]:
    """One step a runtime, dtype and batch that this device can have."""
    kind = resolve_device(device).type

    def group(runtime: str, dtype: str, batch: int) -> Callable[[float], object]:
        return lambda s: _runtime(models(preset), runtime, dtype, batch, device, s)
    return [Step(f"{runtime} {dtype} b{batch}", "compile" if runtime == "compile" else "runtimes", seconds / 2,
                 group(runtime, dtype, batch))
            for batch in batches for runtime, about in RUNTIMES.items() for dtype in DTYPES
            if not {kind, dtype} & set(about.lacks)]


def _slow(models, device: str, gpu: bool, seconds: float) -> list[Step]:
    """What takes minutes: the self-test, growing sizes, the peers."""
    def test(s: float):
        return measuring.self_test({"softmax": models("small")["softmax"]}, 1, max(1, round(s / 3.6)), 30, 3.6, device,
                                   "12_selftest")

    def growing(part: str) -> Callable[[float], object]:
        return lambda s: measuring.scaling([part], s / 8, device, False, "12_scaling")
    parts = ("tokens", "sizes", "batches") if gpu else ("tokens", "sizes", "threads", "batches")
    steps = [Step("self-test", "self-test", 360.0, test)]
    steps += [Step(f"scaling {part}", "scaling", 8 * seconds, growing(part)) for part in parts]
    peers = Step("peers", "peers", 560.0, lambda s: measuring.peers(config.MECHANISMS, (1, 16), s / 112, "12_peers"))
    return steps if gpu else [*steps, peers]


# --------------------------------------------------------------------------------------------- doing it
def device_report(folder: Path, *, profile: str = "full", budget: float = 540.0, device="auto",
                  clock: Callable[[], float] = time.monotonic, steps: list[Step] | None = None) -> list[dict]:
    """Measure what the budget allows and what the folder does not have yet.

    Args:
        folder: of the report, made if it is not there. profile: sizes of models and batches. budget: seconds in all.
        device: `"auto"`, `"cpu"`, `"cuda"`. clock, steps: for tests.
    Returns: one row a step: its name, `done`, `failed`, `not run`, and why.
    Raises: ValueError: an unknown profile, no budget, a folder that holds another device's report.
    """
    in_range("budget", budget, 1.0)
    name, folder, end = device_name(device), Path(folder), clock() + budget
    diary = read_json(folder / DIARY) or {"device": name, "profile": profile, "steps": {}}
    if (diary["device"], diary["profile"]) != (name, profile):
        raise ValueError(f"{folder} holds the report of {diary['device']} with profile {diary['profile']!r}, this is "
                         f"{name} with {profile!r}; take another folder")
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    with environment(MEDBENCH_RESULTS=str(folder)):
        for step in plan(config.profile(profile), str(device), budget) if steps is None else steps:
            known = diary["steps"].get(step.name, {})
            if known.get("state") != "done":
                known = _do(step, end - clock(), diary["steps"], clock)
                diary["steps"][step.name] = known
                write_json(folder / DIARY, diary)
                print(f"{step.name}: {known['state']} {known.get('why', '')}".rstrip(), file=sys.stderr)
            rows.append({"step": step.name, **known})
        (folder / SUMMARY).write_text(summary(folder / name, rows), encoding="utf-8")
    for lock in folder.rglob("*.lock"):
        lock.unlink()
    _check_size(folder)
    return rows


def _do(step: Step, left: float, done: dict, clock) -> dict:
    """Run a step if what is left suffices for it; says how it went."""
    around = [s["seconds"] - s["timing"] for s in done.values() if s["kind"] == step.kind and s["state"] == "done"]
    overhead = max(around, default=OVERHEAD.get(step.kind, 10.0))
    timing = min(step.seconds, left - overhead)
    if timing < min(step.seconds, 5.0):
        return {"state": "not run", "kind": step.kind, "why": f"needs about {overhead + 5:.0f} s, {max(left, 0):.0f} s "
                                                              f"of the budget are left"}
    started = clock()
    try:
        step.run(timing)
    except (RuntimeError, ValueError, ImportError) as error:         # out of memory is a RuntimeError
        return {"state": "failed", "kind": step.kind, "why": f"{type(error).__name__}: {error}"[:300]}
    return {"state": "done", "kind": step.kind, "timing": timing, "seconds": clock() - started}


def _check_size(folder: Path) -> None:
    """Refuse a report that is too large to be sent around; it stays as it is."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    total = sum(path.stat().st_size for path in files)
    if total > MOST_BYTE or len(files) > MOST_FILES:
        raise ValueError(f"the report in {folder} has {len(files)} files of {total:,} bytes in all; wanted at most "
                         f"{MOST_FILES} and {MOST_BYTE:,}; take a smaller profile")


# --------------------------------------------------------------------------------------------- the steps
def _latency(models: dict, batch: int, dtype: str, profile: config.Profile, device: str, seconds: float) -> None:
    """Times of all models at one batch, and the limits of the device, measured in the same step."""
    to, first = results.here("12_latency", device), models["softmax"]
    limits = latency.ceilings(device, dtypes=("float32", "bfloat16"), seconds=min(6.0, seconds / 4))
    found = latency.compare(models, input_size(first, batch), rounds=profile.latency_rounds, seconds=0.75 * seconds,
                            dtype=dtype, device=device)
    prefix = "latency" if first.config.preset == profile.cost_preset else "trained"
    results.record("device", limits, to=to, profile=profile.name)
    timings.record_times({batch: found}, to=to, prefix=prefix, preset=first.config.preset)
    costs = {name: cost.profile(model, input_size(model)) for name, model in models.items()}
    for (name, _), roof in timings.roofs({batch: found}, costs, limits).items():
        results.record(f"{prefix}.{name}", roof, to=to, preset=first.config.preset)


def _memory(models: dict, device: str) -> None:
    """Peak memory of each model for one image."""
    for name, model in models.items():
        results.record(f"latency.{name}", latency.peak_memory(model, input_size(model), device=device),
                       to=results.here("12_latency", device), preset=model.config.preset)


def _energy(models: dict, device: str, seconds: float) -> None:
    """Joule for an image of each model, sixty-four at a time: three windows of work and idling between them."""
    place = resolve_device(device)
    for name, model in models.items():
        x = torch.randn(input_size(model, 64), generator=torch.Generator().manual_seed(0)).to(place)
        found = latency.energy_per_image(model.eval().to(place), x, seconds / len(models) / 5, device=device)
        model.cpu()
        results.record(f"latency.{name}", found, to=results.here("12_latency", device), preset=model.config.preset)


def _runtime(models: dict, runtime: str, dtype: str, batch: int, device: str, seconds: float) -> None:
    """All models in one runtime."""
    measuring.runtimes(models, measuring.untrained(models), (batch,), [runtime], [dtype], seconds, 0, "12_runtimes",
                       False, device)


# --------------------------------------------------------------------------------------------- one page
def summary(folder: Path, rows: list[dict]) -> str:
    """One page in Markdown: the device, what may be concluded, and what was not run. `folder` has the result files."""
    files = [records.read(path) for path in sorted(folder.glob("*.json"))]
    lines = [f"# {folder.name}", ""]
    if files:
        versions = ", ".join(f"{key} {files[0].versions.get(key)}" for key in ("python", "torch", "timm"))
        lines += [f"{versions}; {files[0].created or 'no date'}; commit {files[0].git.get('commit')}", ""]
    table = {}
    for file in files:
        for r in file.records:
            if file.chapter == "12_latency" and r.quantity == "latency" and r.name.startswith("latency."):
                table.setdefault(r.model, {})[re.sub(r"^.*\.latency\.", "", r.name)] = r.value
    columns = list(dict.fromkeys(column for row in table.values() for column in row))
    if table:
        lines += ["Median latency of the large models, ms:", "", "| model | " + " | ".join(columns) + " |",
                  "|---" * (len(columns) + 1) + "|"]
        lines += [f"| {model} | " + " | ".join("-" if row.get(c) is None else f"{row[c]:.3g}" for c in columns) + " |"
                  for model, row in table.items()] + [""]
    said = [r for file in files for r in file.records if r.text and r.quantity in SAID]
    lines += [f"- {r.name}: {r.text}" for r in said] + [""]
    lines += [f"- {row['state']}: {row['step']} ({row['why']})" for row in rows if row["state"] != "done"]
    return "\n".join(lines).rstrip() + "\n"
