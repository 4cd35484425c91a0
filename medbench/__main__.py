"""The command line: `python -m medbench COMMAND`, as `python -m medbench --help` lists them.

Each command checks its input before it works, prints what it made to standard output, and progress and notes to
standard error. A finished run is a folder; `RUN` is its path, or the first letters of its name in the cache.
What the commands do beyond reading their options is in `commands.py`, `evaluating.py` and `measuring.py`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from . import commands, console, evaluating, measuring
from . import options as opt
from .audit import NEAR
from .config import ALL_MODELS, MECHANISMS
from .export import DTYPES, RUNTIMES
from .options import SOURCES, option, with_examples
from .runtimes import BEST
from .scaling import PARTS

NOTICE = "For research and teaching, not for clinical use."

app = typer.Typer(help=f"Efficient attention for medical images, compared fairly. {NOTICE}", add_completion=False,
                  rich_markup_mode=None, pretty_exceptions_enable=False,
                  epilog=with_examples("train --model fastformer --preset small\ncost --models all\ntrain --help"))
data_app = typer.Typer(help="Look at a data set before it is used.", rich_markup_mode=None)
app.add_typer(data_app, name="data")


def command(examples: str):
    """Register a command whose help ends with examples, one a line."""
    return app.command(epilog=with_examples(examples))


# --------------------------------------------------------------------------------------------- commands
@command("""train --model fastformer --preset small
train --model all --preset small --data brain-tumor-mri/manifest.csv
train --model softmax --preset paper --data RadImageNet --subset MR/brain
train --model xca --preset smoke --set lpi=true --set epochs=2""")
def train(model: opt.Models, preset: opt.Preset = "small", data: opt.Source = "phantom", subset: opt.Subset = "",
          profile: opt.Profile = "", seed: opt.Seed = 0, device: opt.Device = "auto", set: opt.Set = (),
          workers: opt.Workers = 0, form: opt.Form = "table"):
    """Train models by the one recipe.

    A run that is finished already is loaded, and an interrupted one goes on. The column run names each run for the
    other commands.
    """
    overrides = ({"subset": subset} if subset else {}) | console.assignments(set)
    console.show(commands.train(commands.model_names(model), preset, data, profile or None, seed, device, overrides,
                                workers), form)


@command("""grid --models all --seeds 0-7 --data brain-tumor-mri/manifest.csv
grid --models softmax,xca --seeds 0,1 --vary lr=0.0005,0.001,0.002
grid --models all --seeds 0-7 --ray""")
def grid(model: opt.Models, seeds: Annotated[str, option("--seeds", metavar="LIST", help="such as 0-7 or 0,2,5")] = "0",
         preset: opt.Preset = "small", data: opt.Source = "phantom", subset: opt.Subset = "", profile: opt.Profile = "",
         device: opt.Device = "auto", set: opt.Set = (),
         vary: Annotated[list[str], option("--vary", metavar="NAME=A,B,...", help="a field that takes several values; "
                                           "may be given several times")] = (),
         ray: Annotated[bool, typer.Option("--ray", help="on the Ray cluster that RAY_ADDRESS names")] = False,
         tries: Annotated[int, option("--tries", min=1, help="how often one training may fail")] = 3,
         again: opt.Again = False,
         form: opt.Form = "table"):
    """Train every model with every seed.

    Side by side where there is room, or on a cluster. The same command passes over what is finished, goes on with what
    was broken off, and tries again what failed. A table in the terminal shows how far each is.
    """
    overrides = ({"subset": subset} if subset else {}) | console.assignments(set)
    rows = commands.grid(commands.model_names(model), commands.seeds_in(seeds), preset, data, profile or None, device,
                         overrides, console.choices(vary), ray, tries, again)
    console.show(rows, form)
    commands.refuse_failed(rows)


@command("""evaluate 3f2a
evaluate runs.csv --compare softmax --calibration
evaluate runs.csv --per-class --format csv
evaluate 3f2a --data other-hospital.csv --every-image
evaluate 3f2a 9c41 --baselines --record 10_real""")
def evaluate(run: opt.Runs, data: opt.Source = None, subset: opt.Subset = "", every_image: opt.EveryImage = False,
             compare: opt.Compare = "", per_class: opt.PerClass = False, calibration: opt.Calibration = False,
             baselines: opt.Baselines = False, bootstrap: opt.Resamples = None, device: opt.Device = "auto",
             record: opt.Chapter = "", form: opt.Form = "table"):
    """Score runs on test images.

    With 95 % intervals, on the test set of their own data or of others. A row a run, or with --compare a row a model.
    """
    console.show(evaluating.evaluate(
        run, data, subset=subset, every=every_image, bootstrap=bootstrap, with_baselines=baselines,
        reference=compare, per_class=per_class, calibration=calibration, device=device, chapter=record or None), form)


@command("""predict 3f2a scan1.png scan2.png > answers.csv
predict runs/3f2a scans/*.png --out answers.csv""")
def predict(run: opt.Run, images: opt.Images, out: Annotated[str, opt.out(
        "FILE", help="a CSV file in place of standard output")] = "", device: opt.Device = "auto"):
    """Say what images show, as CSV.

    The columns: path, the decision, and each class's probability, as if all classes were as frequent.
    """
    rows = commands.predict(run, images, device)
    print(NOTICE, file=sys.stderr)
    if out:
        return console.save(rows, out)
    console.show(rows, "csv")


@data_app.command("check", epilog=with_examples("""data check brain-tumor-mri/manifest.csv
data check RadImageNet --subset MR/brain --out report.json
data check breastmnist.npz --format csv
data check phantom"""))
def data_check(source: Annotated[str, typer.Argument(metavar="SOURCE", help=SOURCES)], subset: opt.Subset = "",
               near: Annotated[float, option("--near", help="correlation of thumbnails from which two images count as "
                                              "near copies")] = NEAR,
               out: Annotated[str, opt.out("JSON", help="also write everything, with names")] = "",
               record: opt.Chapter = "", form: opt.Form = "table"):
    """Report what is in a data set, and what is wrong with it.

    Images of each class and split, sizes and modes, damaged and blank images, exact and near copies within and across
    splits, patients in more than one split.
    """
    console.show(commands.check_data(source, subset, near, out or None, record or None), form)


@command("""cost
cost --setting seed --num-classes 1000
cost --models softmax,window --preset small --img-size 224 --format csv""")
def cost(model: opt.Models = ("all",), preset: opt.Preset = "paper", setting: opt.Setting = "faithful",
         num_classes: Annotated[int, option("--num-classes", min=1)] = 10,
         img_size: Annotated[int | None, option("--img-size", min=1, help="px; by default the preset's")] = None,
         batch: Annotated[int, option("--batch", min=1)] = 1, set: opt.Set = (), record: opt.Chapter = "",
         form: opt.Form = "table"):
    """Count parameters and multiply-adds.

    Of one forward pass in evaluation mode. 1 MAC = 2 FLOP. macs_fvcore counts norms and pooling too.
    """
    overrides = ({"img_size": img_size} if img_size else {}) | console.assignments(set)
    models = commands.build(commands.model_names(model), preset, setting, num_classes, overrides)
    console.show(measuring.cost(models, batch, record or None), form)


@command("""latency --models softmax,fastformer --batch 1
latency --models all --preset small --batch 16 --device cuda --record 12_latency
latency --self-test --record 12_selftest""")
def latency(model: opt.Models = (), preset: opt.Preset = "", setting: opt.Setting = "faithful",
            batch: Annotated[int, option("--batch", min=1, help="images in one forward pass")] = 1,
            rounds: Annotated[int, option("--rounds", min=1, help="interleaved rounds over the models")] = 30,
            seconds: Annotated[float, option("--seconds", min=0.1, help="at most, for all models together (by default "
                                              "120), or for each comparison of the self-test (3.6)")] = None,
            self_test: Annotated[bool, typer.Option("--self-test", help="compare a model with itself, many times, "
                                                    "every second time beside a load")] = False,
            comparisons: Annotated[int, option("--comparisons", min=1, help="of the self-test")] = 100,
            device: opt.Device = "auto", set: opt.Set = (), record: opt.Chapter = "", form: opt.Form = "table"):
    """Time forward passes side by side.

    In interleaved rounds: the median, its 95 % interval and the ratio to the first model. A model that is timed twice
    (an A/A control) says how large a difference this machine shows where there is none. By default all models of the
    preset paper. --self-test counts how often the protocol sees a difference between a model and itself: by default the
    small softmax model, for about six minutes.
    """
    names = commands.model_names(model or ("softmax" if self_test else "all",))
    models = commands.build(names, preset or ("small" if self_test else "paper"), setting, 10, console.assignments(set))
    if self_test:
        rows = measuring.self_test(models, batch, comparisons, rounds, seconds or 3.6, device, record or None)
    else:
        rows = measuring.latency(models, batch, rounds, seconds or 120, device, record or None)
    console.show(rows, form)


@command("""peers
peers --mechanism xca,window --batch 1 --seconds 3 --record 12_peers""")
def peers(mechanism: Annotated[list[str], option("--mechanism", "-m", metavar="NAMES", help="several with commas; by "
                                                  "default all six")] = (),
          batch: Annotated[list[int], option("--batch", min=1, help="may be given several times")] = (1, 16),
          seconds: Annotated[float, option("--seconds", min=0.1, help="for each contest")] = 20.0,
          record: opt.Chapter = "", form: opt.Form = "table"):
    """Time our layers beside other people's.

    On the CPU: the same mechanism, the same shapes, weights copied where they fit, each pair in one interleaved run.
    ratio is our time over theirs.
    """
    names = commands.listed(mechanism, "mechanism", MECHANISMS) or MECHANISMS
    console.show(measuring.peers(names, batch, seconds, record or None), form)


@command("""throughput
throughput --models softmax,resnet50 --preset small --batch 32 --record 10_throughput""")
def throughput(model: opt.Models = ("softmax",), preset: opt.Preset = "paper",
               batch: Annotated[int, option("--batch", min=1, help="images in one step")] = 16,
               seconds: Annotated[float, option("--seconds", min=0.1, help="for each model")] = 240.0,
               record: opt.Chapter = "", form: opt.Form = "table"):
    """Time our training loop beside timm's.

    On the CPU: the same model, images and batch, a step of each loop in turn. ratio is timm's time over ours.
    """
    console.show(measuring.throughput(commands.model_names(model), preset, batch, seconds, record or None), form)


@command("""scaling --record 12_scaling
scaling --part tokens,batches --seconds 20 --record 12_scaling --again""")
def scaling(part: Annotated[list[str], option("--part", metavar="NAMES", help=f"{', '.join(PARTS)}, "
                                               f"{measuring.MEMORY}; several with commas, by default all")] = (),
            seconds: Annotated[float, option("--seconds", min=0.1, help="for each size at most")] = 40.0,
            again: Annotated[bool, typer.Option("--again", help="time recorded sizes once more")] = False,
            device: opt.Device = "auto", record: opt.Chapter = "", form: opt.Form = "table"):
    """Time everything at growing sizes.

    Single layers against the number of tokens, whole models against image size, threads and batch, until time or memory
    runs out; and the memory of the layers. With --record every size is kept as it is done, and the same command goes on
    where it was; a size that had too little time is timed again where --seconds gives it more.
    """
    names = commands.listed(part, "part", (*PARTS, measuring.MEMORY)) or [*PARTS, measuring.MEMORY]
    console.show(measuring.scaling(names, seconds, device, again, record or None), form)


@command("""runtimes
runtimes --models all --preset paper --batch 1 --batch 16 --record 12_runtimes
runtimes --run 3f2a --runtime openvino --dtype float32,bfloat16 --seconds 5""")
def runtimes(model: opt.Models = ("all",), preset: opt.Preset = "paper",
             run: Annotated[list[str], option("--run", metavar="RUN", help="trained models in place of fresh ones; "
                                               "may be given several times")] = (),
             batch: Annotated[list[int], option("--batch", min=1, help="may be given several times")] = (1, 16),
             runtime: Annotated[list[str], option("--runtime", metavar="NAMES", help=f"several with commas; by "
                                                   f"default {', '.join(RUNTIMES)}")] = (),
             dtype: Annotated[list[str], option("--dtype", metavar="NAMES", help=f"several with commas; by default "
                                                 f"{', '.join(DTYPES)}")] = (),
             seconds: Annotated[float, option("--seconds", min=0.1, help="for the timing of each runtime, dtype and "
                                               "batch")] = 60.0,
             images: Annotated[int, option("--images", min=0, help="phantoms on which decisions are compared, in the "
                                            "largest batch")] = 500,
             again: Annotated[bool, typer.Option("--again", help="measure anew what is recorded already")] = False,
             device: opt.Device = "auto", record: opt.Chapter = "", form: opt.Form = "table"):
    """Time the models in other runtimes.

    Eager torch and torch.compile, on a CPU also ONNX Runtime and OpenVINO, on a GPU CUDA graphs, in each dtype: all
    models of one in one interleaved run, and then each model in the runtime that is fastest for it. With the order that
    each gives.
    """
    names = commands.runtime_names(runtime, device)
    dtypes = commands.listed(dtype, "dtype", DTYPES) or list(DTYPES)
    if run:
        models, weights = commands.runs(run)
    else:
        models = commands.build(commands.model_names(model), preset, "faithful", 10, {})
        weights = measuring.untrained(models)
    anew = (*names, BEST) if again else ()
    rows = measuring.runtimes(models, weights, batch, names, dtypes, seconds, images, record or None, anew, device)
    console.show(rows, form)


@command("""device-report --profile full --budget 9m --resume my-gpu
device-report --profile laptop --budget 1h --resume my-laptop --device cpu""")
def device_report(resume: Annotated[str, option("--resume", metavar="DIR", help="the report's folder; what it has "
                                                 "already is not measured again")],
                  budget: Annotated[str, option("--budget", metavar="TIME", help="such as 9m, 1h30m")] = "9m",
                  profile: opt.Size = "full", device: opt.Device = "auto", form: opt.Form = "table"):
    """Measure everything about this device.

    Costs, latency, memory, energy, runtimes, growing sizes: the most important first, as far as the budget goes. Writes
    result files and a summary; the same command goes on. Copied into book/results, the files add this device to the
    book.
    """
    from .report import device_report as report
    rows = report(Path(resume), profile=profile or "full", budget=commands.seconds_in(budget), device=device)
    console.show(rows, form)


@command("""survive --kills 50
survive --kills 20 --model resnet50 --workers 1
survive --kills 5 --seed 3 --record 10_survival""")
def survive(kills: Annotated[int, option("--kills", min=1, help="that have to land")] = 50, seed: opt.Seed = 0,
            model: Annotated[str, option("--model", "-m", choices=ALL_MODELS)] = "softmax", workers: opt.Workers = 0,
            record: opt.Chapter = "", form: opt.Form = "table"):
    """Kill trainings and look how they end.

    Small trainings are killed at random moments, started again until they are done, and compared with one that was not
    killed: weights, optimiser, order of images and scores have to be the same to the last bit.
    """
    console.show(commands.survive(kills, seed, model, workers, record or None), form)


@command("""explain 3f2a scan.png --method integrated_gradients --out scan-explained.png
explain 3f2a scan.png --method occlusion --target normal""")
def explain(run: opt.Run, image: Annotated[str, typer.Argument(metavar="IMAGE")],
            method: opt.Method = "integrated_gradients",
            target: Annotated[str, option("--target", metavar="CLASS", help="by default the decision")] = "",
            out: Annotated[str, opt.out("PNG")] = "explained.png", device: opt.Device = "auto"):
    """Draw what a decision depends on.

    Three pictures: the image, the saliency map, and the map over the image.
    """
    print(commands.explain(run, image, method, target or None, out, device))
    print(NOTICE, file=sys.stderr)


@command("""campaign real-mri
campaign paper-mri --models softmax,xca
campaign paper-mri --seeds 0-7 --device cuda""")
def campaign(name: Annotated[str, typer.Argument(metavar="NAME", help=", ".join(commands.CAMPAIGNS))],
             seeds: Annotated[str, option("--seeds", metavar="LIST", help="those to train now, in place of all")] = "",
             model: opt.Models = (), again: opt.Again = False, device: opt.Device = "auto", form: opt.Form = "table"):
    """Train, score and record what chapter 10 and the page on the models at full size show of long runs.

    All models once on brain-tumor-mri or BreastMNIST, which lie in the folder that MEDBENCH_DATA names. With eight
    seeds, at the recipe's learning rate and at their own: small-mri and small-phantom. Learning curves. The 28 M
    models. Most take hours, and the same command goes on wherever it was broken off.
    """
    console.show(commands.campaign(name, seeds, model, device, again), form)


@command("""ceiling
ceiling --device cuda""")
def ceiling(profile: opt.Size = "laptop", seed: opt.Seed = 0, device: opt.Device = "auto", form: opt.Form = "table"):
    """Train, score and record a ResNet-18 for long.

    On the phantom, far longer than the models of chapter 10: how much of it can be learned at all. About forty
    minutes on two cores.
    """
    from .book.ceiling import record_ceiling
    console.show(record_ceiling(profile=profile, seed=seed, device=device), form)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []})
def book(context: typer.Context):
    """Execute chapters, render the book.

    The Makefile calls the same.
    """
    from .book import runner
    return runner.main(context.args or ["--help"])


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns its exit code. Of several processes only the first prints."""
    if os.environ.get("RANK", "0") != "0":
        sys.stdout = open(os.devnull, "w")
    arguments = sys.argv[1:] if arguments is None else arguments
    return console.guarded(typer.main.get_command(app), arguments or ["--help"])


if __name__ == "__main__":
    sys.exit(main())
