"""The options of the command line, each declared once, with its help and its check.

What lives here, top to bottom: the examples under a help page; an option whose value is checked; the options that
several of the commands in `__main__` take.
"""

from __future__ import annotations

from typing import Annotated

import typer

from . import console, results, saliency
from .checks import one_of, writable
from .config import ALL_MODELS, CONTROL, PRESETS, PROFILES, SETTINGS


def with_examples(text: str) -> str:
    """The end of a help page: what may follow `python -m medbench`, one example a line."""
    lines = "\n".join(f"  python -m medbench {line}" for line in text.strip().splitlines())
    return f"\b\nExamples:\n{lines}"


def option(*names: str, choices=None, metavar: str = "N", **more):
    """A typer option; a value that is not among `choices` is refused before the command starts."""
    def check(value):
        if value and choices:
            one_of(names[0].lstrip("-"), value, tuple(choices))
        return value
    return typer.Option(*names, metavar="|".join(choices) if choices else metavar, callback=check, **more)


def chapter_name(value: str) -> str:
    """Refuse the name of a result file that cannot be one, or cannot be written."""
    if value:
        writable("--record", results.here(value))
    return value


def out(metavar: str, **more):
    """The typer option `--out`; a file that cannot be written is refused before the command starts."""
    def check(value):
        if value:
            writable("--out", value)
        return value
    return typer.Option("--out", metavar=metavar, callback=check, **more)


Models = Annotated[list[str], option("--model", "--models", "-m", metavar="NAMES", help=f"{', '.join(ALL_MODELS)}, or "
                                     f"all: the seven models, without the control {CONTROL}; several with commas")]
Preset = Annotated[str, option("--preset", choices=PRESETS, help="how large the models are")]
Setting = Annotated[str, option("--setting", choices=SETTINGS, help="as each mechanism's paper has it, or as the 2022 "
                                "study computed it")]
Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="auto takes a GPU if there is one")]
Set = Annotated[list[str], option("--set", metavar="NAME=VALUE", help="a field of a configuration or an option of "
                                  "the mechanism, such as lpi=true; may be given several times")]
Form = Annotated[str, option("--format", choices=console.FORMATS, help="of what is printed")]
Workers = Annotated[int, option("--workers", min=0, help="processes that prepare batches; the result is the same")]
Seed = Annotated[int, option("--seed", min=0, help="of weights and training")]
Chapter = Annotated[str, typer.Option("--record", metavar="CHAPTER", callback=chapter_name, help="also record into "
                                      "that file of this device's results, such as 10_real")]
Run = Annotated[str, typer.Argument(metavar="RUN", help="a run's folder, or the first letters of its name")]
Runs = Annotated[list[str], typer.Argument(metavar="RUN...", help="runs' folders, the first letters of their names, "
                                           "or a table (.csv) of runs, as grid and train print it with --format csv")]
Images = Annotated[list[str], typer.Argument(metavar="IMAGES...", help="image files")]
SOURCES = "a manifest (.csv), class folders, RadImageNet's folder, a MedMNIST file (.npz) or medmnist:NAME"
Source = Annotated[str, option("--data", metavar="SOURCE", help=f"phantom, {SOURCES}")]
Subset = Annotated[str, option("--subset", metavar="PART", help="of RadImageNet, such as MR/brain")]
Profile = Annotated[str, option("--profile", choices=PROFILES, help="how many images and epochs; by default the "
                                "profile that trains this preset")]
Size = Annotated[str, option("--profile", choices=PROFILES, help="how much is done")]
Again = Annotated[bool, typer.Option("--again", help="try once more what failed too often before")]
Baselines = Annotated[bool, typer.Option("--baselines", help="also score the shortcuts and the nearest neighbour")]
Compare = Annotated[str, typer.Option("--compare", metavar="MODEL", help="means over seeds, and each model's "
                                      "difference to this one, such as softmax")]
PerClass = Annotated[bool, typer.Option("--per-class", help="sensitivity and specificity of each class, with Wilson's "
                                        "intervals")]
Calibration = Annotated[bool, typer.Option("--calibration", help="also how far probabilities are from frequencies, "
                                           "before and after one temperature found on validation")]
EveryImage = Annotated[bool, typer.Option("--every-image", help="of --data take all images, not those of its test "
                                          "split alone: the runs saw none of them")]
Resamples = Annotated[int, option("--bootstrap", min=0, help="resamples for the 95 % intervals; by default 1000, with "
                                  "--compare 4000")]
Method = Annotated[str, option("--method", choices=saliency.METHODS)]
