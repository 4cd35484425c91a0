r"""Everything about one device in one go, within a budget of time, and to be gone on with.

What lives here, top to bottom: `Step`, one thing to measure; `plan`, what there is, the most important first;
`device_report`, which does it and keeps a diary; what the steps do; `summary`, one page.

What had too little time for a verdict is done once more, with twice as much, after all else: in the same report if the
budget allows it, else in the next.

A folder holds one result file a chapter, `<device>/<chapter>.json`, as `book/results/` does: copied there, they add a
column everywhere. Beside them lie the diary, from which the same command goes on, and the summary.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import config, contests, cost, latency, measuring, records, results, runtimes, scaling
from .book import timings
from .checks import in_range
from .export import DTYPES, RUNTIMES
from .files import environment, read_json, without_folders, write_json
from .machine import device_name, resolve_device
from .models import build_model, input_size

DIARY, SUMMARY = "diary.json", "summary.md"
MOST_BYTE = 2_000_000                        # of a report in all
STEP_BYTE = 150_000                          # that one step may add
SAID = ("conclusion", "self_test", "mean_ratio")                     # records whose sentences stand in the summary
GPU_BATCHES = (1, 64, 16, 256)             # the most wanted first
LEAST_SECONDS, LEAST_SHARE = 5.0, 0.5        # of a timing: with less, or less of what is wanted, a step does not start
PEER_SECONDS = 5.0                           # of one contest of layers
COMPARISONS = 100                            # of the self-test
SHARE = 12                                   # the timing of one group takes this part of the budget at most
AROUND = {"cpu": (20.0, 1.5), "cuda": (20.0, 0.0)}   # seconds around a timing: in all, and for each image of the batch
EXPORTED, COMPILED = 40.0, 220.0             # and more for a group that is exported, or compiled


class TooShort(str):
    """Why a step is not complete, where more seconds would help."""


@dataclass(frozen=True)
class Step:
    """One thing to measure: `run(seconds)` records it, timing for that long, and may return why it is not complete.

    `around`: seconds beside the timing, as long as no step of the same `kind` was done; `whole`: it takes all its
    seconds, or does not start.
    """

    name: str
    kind: str
    seconds: float
    run: Callable[[float], str | None]
    around: float = 10.0
    whole: bool = False


# --------------------------------------------------------------------------------------------- the plan
def plan(profile: config.Profile, device: str, budget: float) -> list[Step]:
    """What there is to measure on a device, the most important first.

    Costs; for one image the latency of the large models with the device's limits, then their memory, the small models,
    energy, or why there is none, and every runtime with each model in its best; latency and runtimes of more images;
    the protocol's self-test; growing sizes and the memory of layers; other people's layers (on a CPU); the other
    batches.
    """
    kind, seconds = resolve_device(device).type, min(profile.latency_seconds, max(5.0, budget / SHARE))
    gpu = kind == "cuda"
    models = functools.cache(lambda preset: {name: build_model(name, preset) for name in config.ALL_MODELS})
    large, batches = profile.cost_preset, GPU_BATCHES if gpu else profile.latency_batches

    def times(preset: str, batch: int, dtype: str) -> Callable[[float], str | None]:
        return lambda s: _latency(models(preset), batch, dtype, profile, device, s)

    def latencies(batch: int) -> list[Step]:
        return [Step(f"latency {dtype} b{batch}", f"latency b{batch}", seconds, times(large, batch, dtype),
                     _around(kind, batch)) for dtype in ("float32", "bfloat16")]
    first, *more = batches
    steps = [Step("costs", "costs", 20.0, lambda s: _costs(models(large), device), whole=True), *latencies(first)]
    steps += [Step("memory", "memory", 60.0, lambda s: _memory(models(large), device), whole=True)]
    steps += [Step("small models b1", "small", seconds, times(profile.preset, 1, "float32"))]
    steps += [Step("energy", "energy", budget / 6 if gpu else 1.0, lambda s: _energy(models(large), device, s), 20.0)]
    steps += _runtimes(models, large, first, device, seconds)
    for batch in (*more[:1], None, *more[1:]):               # what takes minutes stands between
        steps += _slow(models, device, gpu, seconds) if batch is None else \
            latencies(batch) + _runtimes(models, large, batch, device, seconds)
    return steps


def _around(kind: str, batch: int) -> float:
    """Seconds that a group of eight large models takes beside its timing: building, the gate, float64."""
    once, each = AROUND[kind]
    return once + each * batch


def _runtimes(models, preset: str, batch: int, device: str, seconds: float) -> list[Step]:
    """One step a runtime and dtype that this device can have at one batch, and one for each model in its best."""
    kind = resolve_device(device).type

    def group(runtime: str, dtype: str) -> Callable[[float], str | None]:
        if runtime == runtimes.BEST:
            return lambda s: _best(models(preset), dtype, batch, device, s)
        return lambda s: _runtime(models(preset), runtime, dtype, batch, device, s)
    cells = [(runtime, dtype, COMPILED if runtime == "compile" else EXPORTED)
             for runtime, about in RUNTIMES.items() for dtype in DTYPES if not {kind, dtype} & set(about.lacks)]
    cells.sort(key=lambda cell: cell[2])                      # compiling eight models takes minutes
    cells += [(runtimes.BEST, dtype, COMPILED) for dtype in DTYPES if sum(dtype == cell[1] for cell in cells) > 1]
    return [Step(f"{runtime} {dtype} b{batch}", f"{runtime} b{batch}", seconds / 2, group(runtime, dtype),
                 _around(kind, batch) + more) for runtime, dtype, more in cells]


def _slow(models, device: str, gpu: bool, seconds: float) -> list[Step]:
    """What takes minutes: the self-test, growing sizes, the memory of layers, the peers."""
    def test(s: float) -> None:
        measuring.self_test({"softmax": models("small")["softmax"]}, 1, COMPARISONS, 30, s / COMPARISONS, device,
                            "12_selftest")

    def growing(part: str, sizes: int) -> Callable[[float], str | None]:
        return lambda s: _grown(part, s / sizes, device)

    def others(name: str, units: int) -> Callable[[float], str | None]:
        return lambda s: _peers(name, s / units)
    parts = {part: len(scaling.default_sizes(part)) for part in ("tokens", "sizes", "batches", "threads")
             if not (gpu and part == "threads")}
    steps = [Step("self-test", "self-test", 3.6 * COMPARISONS, test, 30.0, whole=True)]
    steps += [Step(f"scaling {part}", f"scaling {part}", sizes * seconds, growing(part, sizes), 5.0 * sizes)
              for part, sizes in parts.items()]
    theirs = {} if gpu else {name: contests.units((name,), (1, 16)) for name in config.MECHANISMS}
    steps += [Step("memory of layers", "peaks", 1.0, lambda s: _peaks(device), 300.0 if not gpu else 20.0)]
    return steps + [Step(f"peers {name}", f"peers {name}", PEER_SECONDS * units, others(name, units), 3.0 * units)
                    for name, units in theirs.items() if units]


# --------------------------------------------------------------------------------------------- doing it
def device_report(folder: Path, *, profile: str = "full", budget: float = 540.0, device="auto",
                  clock: Callable[[], float] = time.monotonic, steps: list[Step] | None = None) -> list[dict]:
    """Measure what the budget allows and what the folder does not have yet.

    Args:
        folder: of the report, made if it is not there. profile: sizes of models and batches. budget: seconds in all.
        device: `"auto"`, `"cpu"`, `"cuda"`. clock, steps: for tests.
    Returns: one row a step: its name, `done`, `failed`, `not run`, and why.
    Raises: ValueError: an unknown profile, no budget, a folder that holds another device's report or other files.
    """
    in_range("budget", budget, 1.0)
    name, folder, end = device_name(device), Path(folder), clock() + budget
    diary = read_json(folder / DIARY) or {"device": name, "profile": profile, "steps": {}}
    if folder.is_dir() and any(folder.iterdir()) and not (folder / DIARY).exists():
        raise ValueError(f"{folder} holds files and no report; take a new folder, or that of an earlier report")
    if (diary["device"], diary["profile"]) != (name, profile):
        raise ValueError(f"{folder} holds the report of {diary['device']} with profile {diary['profile']!r}, this is "
                         f"{name} with {profile!r}; take another folder")
    folder.mkdir(parents=True, exist_ok=True)
    steps, rows = plan(config.profile(profile), str(device), budget) if steps is None else steps, {}

    def go(step: Step) -> None:
        known = before = diary["steps"].get(step.name, {})
        if before.get("state") != "done":
            known = _do(_longer(step, before), end - clock(), diary["steps"], clock, _byte(folder))
            if known["state"] == "not run" and _short(before):
                known = before | {"again": known["why"]}
            diary["steps"][step.name] = known
            write_json(folder / DIARY, diary)
            print(f"{step.name}: {known['state']} {_why(known)}".rstrip(), file=sys.stderr)
        rows[step.name] = {"step": step.name, **known, **({"why": _why(known)} if "why" in known else {})}
        (folder / SUMMARY).write_text(summary(folder / name, list(rows.values())), encoding="utf-8")
    with environment(MEDBENCH_RESULTS=str(folder)):
        for later in (False, True):
            for step in [step for step in steps if _short(diary["steps"].get(step.name, {})) == later]:
                go(step)
    for lock in (folder / name).glob("*.json.lock"):
        lock.unlink()
    return [rows[step.name] for step in steps]


def _short(known: dict) -> bool:
    """Whether a step of the diary had too little time."""
    return known.get("state") == "not complete" and known.get("short", False)


def _longer(step: Step, before: dict) -> Step:
    """The step with twice the time that it had before, if that was too little."""
    return dataclasses.replace(step, seconds=max(step.seconds, 2 * before["timing"])) if _short(before) else step


def _why(known: dict) -> str:
    """Why a step is not done, and why it was not done once more."""
    return "; ".join(known[key] for key in ("why", "again") if key in known)


def _byte(folder: Path) -> int:
    """Bytes of all files of the report."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _do(step: Step, left: float, done: dict, clock, byte: int) -> dict:
    """Run a step if the budget that is left suffices for it and the report has room; says how it went."""
    if byte > MOST_BYTE - STEP_BYTE:
        return {"state": "not run", "kind": step.kind, "why": f"the report has {byte:,} of {MOST_BYTE:,} bytes already"}
    around = [s["seconds"] - s["timing"] for s in done.values() if s["kind"] == step.kind and "seconds" in s]
    around = max(0.0, max(around, default=step.around))
    timing = min(step.seconds, left - around)
    least = step.seconds if step.whole else min(step.seconds, max(LEAST_SECONDS, LEAST_SHARE * step.seconds))
    if timing < least:
        why = f"needs about {around + least:.0f} s, {max(left, 0):.0f} s of the budget are left"
        return {"state": "not run", "kind": step.kind, "why": why}
    started = clock()
    try:
        why = step.run(timing)
    except Exception as error:           # whatever a runtime raises: the other steps do not depend on it
        return {"state": "failed", "kind": step.kind, "why": without_folders(f"{type(error).__name__}: {error}")[:300]}
    took = {"kind": step.kind, "timing": timing, "seconds": clock() - started}
    if isinstance(why, TooShort):
        return {"state": "not complete", "why": why, "short": True, **took}
    return {"state": "not complete", "kind": step.kind, "why": why} if why else {"state": "done", **took}


# --------------------------------------------------------------------------------------------- the steps
def _costs(models: dict, device: str) -> None:
    """What each large model costs, counted."""
    measuring.cost(models, 1, "11_cost", device)


def _latency(models: dict, batch: int, dtype: str, profile: config.Profile, device: str, seconds: float) -> str | None:
    """Times of all models at one batch, and the limits of the device, measured in the same step; if there were too few
    rounds for a verdict, that."""
    to, first = results.here("12_latency", device), models["softmax"]
    limits = latency.ceilings(device, dtypes=(dtype,), seconds=min(6.0, seconds / 4))
    found = latency.compare(models, input_size(first, batch), rounds=profile.latency_rounds, seconds=0.75 * seconds,
                            dtype=dtype, device=device)
    prefix = "latency" if first.config.preset == profile.cost_preset else "trained"
    found = dataclasses.replace(found, timings={name: timing.thinned() for name, timing in found.timings.items()})
    results.record("device", limits, to=to, profile=profile.name)
    timings.record_times({batch: found}, to=to, prefix=prefix, preset=first.config.preset)
    costs = {name: cost.profile(model, input_size(model)) for name, model in models.items()}
    for (name, _), roof in timings.roofs({batch: found}, costs, limits).items():
        results.record(f"{prefix}.{name}", roof, to=to, preset=first.config.preset)
    few = found.stopped == "seconds" and not found.judged
    return TooShort(f"{len(found.quiet)} quiet rounds, {latency.fewest_rounds()} are needed") if few else None


def _memory(models: dict, device: str) -> None:
    """Peak memory of each model for one image."""
    measuring.memory(models, device, results.here("12_latency", device))


def _grown(part: str, seconds: float, device: str) -> str | None:
    """One part of the growing sizes, so many seconds each; if some have no verdict, that."""
    measuring.scaling([part], seconds, device, False, "12_scaling")
    points = scaling.recorded(results.read(results.here("12_scaling", device)).records, part)
    sizes = sorted({point.at for point in points if point.too_short})
    return TooShort(f"too little time at {', '.join(map(str, sizes))} {scaling.PARTS[part][1]}") if sizes else None


def _peers(mechanism: str, seconds: float) -> str | None:
    """One mechanism's layer beside other people's, so many seconds a contest; how many had too few rounds."""
    lines = measuring.peers((mechanism,), (1, 16), seconds, "12_peers")
    few = sum(line["rounds"] < latency.fewest_rounds() for line in lines)
    return TooShort(f"{few} of {len(lines)} contests had too few quiet rounds") if few else None


def _peaks(device: str) -> None:
    """Memory of layers at growing numbers of tokens."""
    measuring.scaling([measuring.MEMORY], 0.0, device, False, "12_scaling")


def _energy(models: dict, device: str, seconds: float) -> None:
    """Joule for an image of each model: three windows of work and idling between them."""
    measuring.energy(models, device, seconds / len(models) / 5, results.here("12_latency", device))


def _runtime(models: dict, runtime: str, dtype: str, batch: int, device: str, seconds: float) -> str | None:
    """All models in one runtime; if its package is not installed, or there were too few rounds for an order, that."""
    table = measuring.runtimes(models, measuring.untrained(models), (batch,), [runtime], [dtype], seconds, 0,
                               "12_runtimes", [runtime], device)
    missing = next((line["reason"] for line in table if (line["reason"] or "").startswith("not installed")), None)
    return missing or _unranked(table)


def _unranked(table: list[dict]) -> TooShort | None:
    """That the models of some lines were timed and have no order, if it is so."""
    few = any(line["latency_ms"] is not None and line["rank"] is None for line in table)
    return TooShort("too few quiet rounds for an order") if few else None


def _best(models: dict, dtype: str, batch: int, device: str, seconds: float) -> str | None:
    """Each model in the best of the runtimes that were timed; if there are not two, or too few rounds, that."""
    to = results.here("12_runtimes", device)
    known = runtimes.recorded(results.read(to).records) if to.exists() else {}
    names = [key[0] for key, group in known.items() if key[1:] == (dtype, batch) and key[0] != runtimes.BEST
             and any(row["quantity"] == "latency" and row["value"] for rows in group.values() for row in rows)]
    if len(names) < 2:
        return "fewer than two runtimes were timed"
    table = measuring.runtimes(models, measuring.untrained(models), (batch,), names, [dtype], seconds, 0,
                               "12_runtimes", [runtimes.BEST], device)
    return _unranked([line for line in table if line["runtime"] == runtimes.BEST])


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
