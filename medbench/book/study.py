"""The figures that the study published, typed once, each with the place where it stands.

`python -m medbench.book.study` writes them to `book/results/study-2022/`, one file for each chapter that quotes them;
a test holds the files equal to what is here. The study is a course project of 2022 at the University of
Wisconsin-Madison, "Benchmarking Efficient Transformers for Medical Imaging" (G. Ramesh, M. Sreedhar, K. Goyal).

What lives here, top to bottom: the tables as published; what follows from them by arithmetic (not quoted); the files.
A figure is quoted because it was published, not because it is right: the errata page says which are not.
"""

from __future__ import annotations

import math
from pathlib import Path

from ..records import Record, ResultFile, write
from ..results import STUDY, edition_root

PAGE = "Benchmarking Efficient Transformers for Medical Imaging (2022)"
TABLE = f"{PAGE}, table 'Benchmarking the FLOPS and Inference Latency'"
BARS = f"{PAGE}, bar chart 'Top-1 Accuracy of the models on the dev set', read off the bars"
READING = 0.0002                                     # how far a bar's height may be misread

# model: seconds on Xeon, "RTX 2060 Ti" and A100; "FLOPS (Giga)"; parameters in millions
COSTS = {
    "linformer": (7.13, 0.18, 0.09, 1.56, 28.56),
    "performer": (6.249, 0.16, 0.07, 1.47, 28.28),
    "window": (6.86, 0.18, 0.086, 1.50, 28.28),
    "resnet50": (8.63, 0.2, 0.12, 4.00, 25.6),
    "softmax": (8.904, 0.26, 0.13, 1.91, 28.27),
    "fastformer": (4.589, 0.14, 0.05, 1.45, 28.28),
    "xca": (6.452, 0.17, 0.07, 1.47, 28.28),
}
HARDWARE = {"xeon": "Intel Xeon", "rtx": "Nvidia RTX 2060 Ti", "a100": "Nvidia A100"}

# model: top-1 in percent on the development set, one run
TOP1 = {"resnet50": 88.72, "softmax": 89.42, "linformer": 90.70, "window": 87.79, "xca": 88.20, "performer": 89.49,
        "fastformer": 91.25}

# class: images
IMAGES = {"acute_infarct": 513, "arteriovenous_anomaly": 272, "chronic_infarct": 2307, "edema": 125, "extra": 1259,
          "focal_flair_hyper": 751, "intra": 1721, "normal": 27374, "pituatary_lesion": 83,
          "white_matter_changes": 10266}

# name: value, unit, the study's words, section
CLAIMS = {
    "fewer_flops": (0.35, "1", "Efficient Transformer models, on average, utilize ~35% fewer FLOPs than the full "
                               "self-attention model.", "FLOPs vs Accuracy"),
    "resnet50_flops": (2.5, "1", "Even though Resnet-50 uses 2.5x more FLOPs than the full self-attention transformer "
                                 "model, it has a lower latency time.", "Inference Latencies on CPU"),
    "best_top1": (0.91, "1", "Fastformer is our best performing model with a top-1 accuracy of 91%.", "Top-1 Accuracy"),
    "params": (28e6, "parameters", "we adjust the model configuration (number of layers, feed-forward units, etc.) to "
                                   "approximately 28M parameters.", "Top-1 Accuracy"),
    "cnn_beaten": (None, "1", "Transformer models outperform the CNN baseline.", "Top-1 Accuracy"),
    "as_good_as_softmax": (None, "1", "Efficient attention models perform as well as or sometimes even better than the "
                                      "full self-attention model.", "Top-1 Accuracy"),
    "interpretability": (None, "1", "Approximation of the attention mechanism does not affect the interpretability of "
                                    "the model!", "Integrated Gradients and Saliency Maps"),
}

# model: top-1 in percent on ImageNet-1k for the same pyramid, in the paper whose set-up the study took over
IMAGENET = {"softmax": 79.0, "fastformer": 76.0}
IMAGENET_SOURCE = "Fair Comparison between Efficient Attentions (2022), arXiv:2206.00244, ImageNet-1k results"


# --------------------------------------------------------------------------------------------- quoted
def _quote(name, quantity, value, unit, source, model=None, text=None, **context) -> Record:
    return Record(name=name, quantity=quantity, value=value, unit=unit, model=model, text=text, quoted=True,
                  source=source, context=context)


def images() -> list[Record]:
    """Class counts of the study's data, RadImageNet's brain MRI."""
    source = f"{PAGE}, table of the class distribution"
    return [_quote(f"data.images.{key}", "images", n, "1", source, **{"class": key}) for key, n in IMAGES.items()]


def costs() -> list[Record]:
    """Parameters and multiply-adds of the seven models; the study's column calls the latter FLOPS (Giga)."""
    found = []
    for model, (*_, giga, millions) in COSTS.items():
        found.append(_quote(f"cost.{model}.params", "params", millions * 1e6, "parameters", TABLE, model))
        for quantity in ("macs", "macs_fvcore"):
            found.append(_quote(f"cost.{model}.{quantity}", quantity, giga * 1e9, "MAC", TABLE, model,
                                called="FLOPS (Giga)", num_classes=1000))
    return found


def latencies() -> list[Record]:
    """Seconds on three devices; no type, thread count, batch that fits, version or spread is given."""
    return [_quote(f"latency.{model}.{key}", "latency", seconds, "s", TABLE, model, hardware=HARDWARE[key], batch=1)
            for model, row in COSTS.items() for key, seconds in zip(HARDWARE, row)]


def accuracies() -> list[Record]:
    """Top-1 accuracy of one run of each model, and of two of them on ImageNet in the parent paper."""
    bars = [_quote(f"accuracy.{model}.top1", "top1", top1 / 100, "1", BARS, model, reading_tolerance=READING,
                   split="development") for model, top1 in TOP1.items()]
    return bars + [_quote(f"imagenet.{model}.top1", "top1", top1 / 100, "1", IMAGENET_SOURCE, model, split="validation")
                   for model, top1 in IMAGENET.items()]


def claims() -> list[Record]:
    """What the study concluded, in its own words, with the number where there is one."""
    return [_quote(f"claim.{key}", key, value, unit, f"{PAGE}, section '{section}'", text=words)
            for key, (value, unit, words, section) in CLAIMS.items()]


# --------------------------------------------------------------------------------------------- derived
def derived() -> list[Record]:
    """What the published figures themselves say, by arithmetic."""
    def say(key, value, how, **context):
        return Record(name=f"derived.{key}", quantity=key, value=value, source=f"computed: {how}", context=context)
    giga = {model: row[3] for model, row in COSTS.items()}
    others = [giga[model] for model in COSTS if model not in ("softmax", "resnet50")]
    total, held_out = sum(IMAGES.values()), round(sum(IMAGES.values()) / 10)
    best = max(TOP1.values()) / 100
    return [
        say("image_count", total, "sum of the class counts"),
        say("majority_share", IMAGES["normal"] / total, "normal images / all images"),
        say("fewer_macs_mean", 1 - sum(others) / len(others) / giga["softmax"], "mean of the five against softmax"),
        say("fewer_macs_best", 1 - min(others) / giga["softmax"], "least of the five against softmax"),
        say("resnet50_over_softmax", giga["resnet50"] / giga["softmax"], "4.00 / 1.91"),
        say("top1_half_width", 1.959964 * math.sqrt(best * (1 - best) / held_out),
            "95 % half-width of the best accuracy on a tenth of the images", images=held_out),
    ]


# --------------------------------------------------------------------------------------------- files
def files() -> list[ResultFile]:
    """One result file for each chapter that compares with the study."""
    chapters = {"01_data": images(), "10_training": accuracies(), "11_cost": costs(), "12_latency": latencies(),
                "14_results": claims() + derived()}
    machine = {"reason": "published figures; all that is known of the machine stands in the records"}
    return [ResultFile(device=STUDY, chapter=chapter, machine=machine, records=records)
            for chapter, records in chapters.items()]


def main(root: Path | None = None) -> list[Path]:
    """Write the files below `root` (`book/results` unless given) and return where they lie."""
    written = []
    for file in files():
        written.append((root or edition_root()) / file.device / f"{file.chapter}.json")
        write(written[-1], file)
    return written


if __name__ == "__main__":
    for path in main():
        print(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
