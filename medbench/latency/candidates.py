r"""What `latency.compare` times: a module as it is, or anything else that is called with a tensor.

What lives here, top to bottom: `Candidate`; how a module becomes one; `graphed`, a module as a CUDA graph.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..machine import resolve_device

WARM_UP_CALLS = 3            # before a capture, as torch's notes on CUDA graphs have it


# --------------------------------------------------------------------------------------------- what is timed
@dataclass(frozen=True)
class Candidate:
    """One thing to time. `run` takes the input; `exact` is what it must agree with, in float64 on the CPU."""

    name: str
    run: Callable[[Tensor], Tensor]
    exact: Callable[[Tensor], Tensor]
    dtype: str = "float32"
    runtime: str = "eager"
    module: nn.Module | None = None


def candidate(name: str, model: nn.Module | Candidate, place: torch.device, dtype: str) -> Candidate:
    """A module, run as it is or under autocast, and its float64 copy to agree with; a `Candidate` stays what it is."""
    if isinstance(model, Candidate):
        return dataclasses.replace(model, name=name)

    def cast(x: Tensor) -> Tensor:
        with torch.autocast(place.type, getattr(torch, dtype)):
            return model(x)

    def exact(x: Tensor) -> Tensor:
        return copy.deepcopy(model).cpu().double()(x)

    return Candidate(name, model if dtype == "float32" else cast, exact, dtype, module=model)


# --------------------------------------------------------------------------------------------- a CUDA graph
def graphed(module: nn.Module, example: Tensor, device="cuda") -> Candidate:
    """A copy of a module as one CUDA graph: all its kernels start at once, so what each costs to start is saved.

    A call copies its input into the graph's own, replays, and returns the graph's own output, which the next call
    overwrites. The module itself stays as and where it is.

    Args: `module`, in evaluation mode for the capture; `example`, an input of the one shape that the graph takes;
        `device`, `"cuda"` or one GPU of several.
    Returns: `Candidate` with the runtime `"cudagraph"`.
    Raises: RuntimeError without a GPU. The candidate raises ValueError for an input of another shape.
    Source: torch's notes on CUDA semantics, "CUDA Graphs".
    """
    place = resolve_device(device)
    if place.type != "cuda":
        raise RuntimeError(f"device is {str(device)!r}, which is no GPU; a CUDA graph needs one: device='cuda'")
    own = copy.deepcopy(module).to(place).eval()             # whose weights nobody moves away from under the graph
    static = example.detach().clone().to(place)
    with torch.inference_mode():
        graph, output = _capture(own, static, place)

    def run(x: Tensor) -> Tensor:
        if x.shape != static.shape:
            raise ValueError(f"the graph was captured for {tuple(static.shape)} but received {tuple(x.shape)}; capture "
                             f"another with an example of that shape")
        static.copy_(x)
        graph.replay()
        return output

    exact = copy.deepcopy(module).cpu().double().eval()
    dtype = str(example.dtype).removeprefix("torch.")
    return Candidate("", run, exact, dtype, "cudagraph", own)


def _capture(own: nn.Module, static: Tensor, place: torch.device):
    """The graph and its output; warmed up on a stream aside, since the first calls allocate what a graph may not."""
    with torch.cuda.device(place):
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(WARM_UP_CALLS):
                own(static)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = own(static)
    return graph, output
