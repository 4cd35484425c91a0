"""A model as an ONNX file, in float32 or with int8 weights: what ONNX Runtime and OpenVINO both read.

What lives here, top to bottom: `onnx_file`; the trace; dynamic quantisation and how much of a model it reaches.
"""

from __future__ import annotations

import logging
import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from .files import read_json, write_json

OPSET = 20                   # the first with GELU as one operator; LayerNorm is one from 17 on
QUANTISED = 0.25             # least share of the weights that dynamic quantisation has to reach


class NotSupported(ValueError):
    """A runtime that cannot run this model in this dtype on this machine."""


def onnx_file(module: nn.Module, x: Tensor, folder, quantised: bool = False) -> tuple[Path, float]:
    """The module as an ONNX file for inputs of the shape of `x`; one that lies in the folder is used again, and the
    seconds that this spared come with it.

    torch's exporter by tracing, since the newer one (`dynamo=True`) makes graphs that run no faster, takes four times
    as long and does not take the windows' bias.
    Raises: NotSupported: most weights would stay as they are when `quantised`.
    """
    path = Path(folder) / f"{'x'.join(map(str, x.shape))}.onnx"
    spared = _once(path, lambda: _traced(module, x, path))
    if not quantised:
        return path, spared
    small = path.with_suffix(".int8.onnx")
    spared += _once(small, lambda: _quantised(path, small))
    if (share := _int8_share(small)) < QUANTISED:
        raise NotSupported(f"dynamic quantisation is for matrix products, which hold {share:.0%} of this model's "
                           f"weights")
    return small, spared


def _once(path: Path, make: Callable[[], None]) -> float:
    """Make a file unless it is there, and note how long that took; returns the seconds spared if it was there."""
    note = path.with_suffix(".json")
    if path.exists() and (noted := read_json(note)):
        return noted["seconds"]
    start = time.perf_counter()
    make()
    write_json(note, {"seconds": time.perf_counter() - start})
    return 0.0


def _traced(module: nn.Module, x: Tensor, path: Path) -> None:
    """The module's operators on one input, as ONNX."""
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")                  # it is deprecated, and traces constants on purpose
        torch.onnx.export(module, (x.clone(),), str(path), dynamo=False, opset_version=OPSET, input_names=["images"],
                          output_names=["logits"])


def _quantised(path: Path, to: Path) -> None:
    """The same with int8 weights in matrix products."""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)                     # it recommends a pass that changes nothing here
    try:
        quantize_dynamic(path, to, op_types_to_quantize=["MatMul", "Gemm"], weight_type=QuantType.QInt8)
    finally:
        logging.disable(before)


def _int8_share(path: Path) -> float:
    """Share of the numbers stored in an ONNX file that are int8."""
    import onnx
    stored = onnx.load(str(path)).graph.initializer
    small = sum(math.prod(t.dims) for t in stored if t.data_type == onnx.TensorProto.INT8)
    return small / max(1, sum(math.prod(t.dims) for t in stored))
