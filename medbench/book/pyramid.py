"""What chapter 02 shows of the backbone: its stages, its shared weights, and where its arithmetic goes."""

from __future__ import annotations

import math

from .. import config, cost, results
from ..models import build_model

PARTS = ("mixing", "projections", "MLP", "other")


def stages(model):
    """One row a stage of a pyramid: `stage`, `rows`, `columns`, `tokens`, `channels`, `heads`, `blocks`."""
    import pandas as pd

    def row(number, stage):
        attn = stage.blocks[0].attn
        return {"stage": number, "rows": stage.grid_size[0], "columns": stage.grid_size[1],
                "tokens": math.prod(stage.grid_size), "channels": attn.dim, "heads": attn.num_heads,
                "blocks": len(stage.blocks)}
    return pd.DataFrame([row(number, stage) for number, stage in enumerate(model.stages, 1)])


def shared_weights(first, second) -> tuple[int, int, bool]:
    """Weights that two pyramids have under the same name and shape: how many tensors, how many numbers, all equal?"""
    ours, theirs = first.state_dict(), second.state_dict()
    common = [name for name, value in ours.items() if name in theirs and theirs[name].shape == value.shape]
    return len(common), sum(ours[n].numel() for n in common), all(ours[n].equal(theirs[n]) for n in common)


def parts(model, input_size: tuple[int, ...]):
    """Where the multiply-adds of one image go, stage by stage.

    Args: `model` a pyramid; `input_size` such as (1, 3, 224, 224).
    Returns: DataFrame `stage`, `tokens`, and in MAC `mixing`, `projections` (`qkv` and `proj`), `MLP` and `other`
    (stem, patch merge), as counted; the columns sum up to the model without its classifier.
    """
    import pandas as pd
    counted, rows = cost.profile(model, input_size), []
    for place, stage in enumerate(model.stages):
        tokens, blocks = math.prod(stage.grid_size), stage.blocks
        found = {"mixing": sum(block.attn.mixing_macs(tokens) for block in blocks),
                 "projections": sum(block.attn.projection_macs(tokens) for block in blocks),
                 "MLP": sum(tokens * (b.mlp.fc1.weight.numel() + b.mlp.fc2.weight.numel()) for b in blocks)}
        whole = counted.by_stage[f"stages.{place}"]["macs"] + (counted.by_stage["stem"]["macs"] if place == 0 else 0)
        rows.append({"stage": place + 1, "tokens": tokens, **found, "other": whole - sum(found.values())})
    return pd.DataFrame(rows)


def parts_by_size(name: str, preset: str, sizes=(112, 224, 448)):
    """The sums of `parts` for several image sizes: one row a size, with `share`, what mixing has of the whole."""
    import pandas as pd
    rows = []
    for size in sizes:
        model = build_model(name, preset=preset, img_size=size)
        table = parts(model, (1, model.config.in_chans, size, size))
        sums = {part: int(table[part].sum()) for part in PARTS}
        share = cost.profile(model, (1, model.config.in_chans, size, size)).mixing_share
        rows.append({"img_size": size, "tokens": int(table["tokens"].iloc[0]), **sums, "share": share})
    return pd.DataFrame(rows)


def study_table(num_classes=(1000, 10), img_size: int = 224):
    """The study's models, built and counted, beside what it printed.

    Returns: DataFrame, one row a model: `params_<k>` and `macs_<k>` (fvcore's convention) for each number of classes k,
    `study_params` and `study_macs` as quoted.
    """
    columns = {}
    for k in num_classes:
        models = {name: build_model(name, "paper", "seed", k) for name in config.MODELS}
        table = cost.table(models, (1, 3, img_size, img_size)).set_index("model")
        columns |= {f"params_{k}": table["params"], f"macs_{k}": table["macs_fvcore"]}
    frame = next(iter(columns.values())).to_frame().assign(**columns)[list(columns)]
    for quantity, column in (("params", "study_params"), ("macs_fvcore", "study_macs")):
        frame[column] = [results.value(f"cost.{name}.{quantity}", results.STUDY, "11_cost") for name in frame.index]
    return frame.reset_index()


def study_rows(row, num_classes: int) -> list[dict]:
    """One model's parameters and multiply-adds for one number of classes, as rows for `mb.results.record`."""
    units = {"params": ("params", "parameters"), "macs_fvcore": ("macs", "MAC")}
    return [{"quantity": quantity, "value": int(row[f"{column}_{num_classes}"]), "unit": unit,
             "suffix": f"c{num_classes}", "model": row["model"]} for quantity, (column, unit) in units.items()]
