r"""Our layers timed beside other people's, and who is quicker.

What lives here, top to bottom: `Contest`, ours against theirs in one case; `compare` and `contests`, which time them;
`standings`, what all cases say of each mechanism.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from importlib import metadata

import torch
from torch import Tensor, nn

from . import latency
from .checks import one_of
from .latency.timing import milliseconds as ms
from .models import input_size
from .peers import PEERS, PYRAMID, SHAPES, SWIN, Peer, installed, pair, pyramids

OURS = "medbench"
PYRAMID_TIMES = 7            # a call takes some fifty times as long as a layer's


# --------------------------------------------------------------------------------------------- one case
@dataclass(frozen=True)
class Contest:
    """Ours against theirs on one shape: `found` has both timings, theirs as the reference; `ours` over `theirs` is
    `found["medbench"].ratio`, and its verdict speaks of ours."""

    peer: Peer
    shape: str
    backward: bool
    found: latency.Comparison

    def row(self) -> dict:
        """One line of the table: milliseconds of both, ours over theirs with its interval, the verdict."""
        ours, theirs = self.found[OURS], self.found[self.peer.name]
        known = {"ratio": ours.ratio, "ratio_low": ours.ratio_low, "ratio_high": ours.ratio_high}
        return {"mechanism": self.peer.mechanism, "peer": self.peer.name, "shape": self.shape, "batch": ours.batch,
                "dtype": ours.dtype, "pass": "both" if self.backward else "forward",
                "ours_ms": ms(ours.median), "theirs_ms": ms(theirs.median), **known, "floor": self.found.floor,
                "rounds": len(self.found.quiet),
                "verdict": ours.verdict if theirs.median else theirs.reason, "differs": self.peer.differs}

    def rows(self) -> list[dict]:
        """Records: the ratio with its interval and verdict, the time of both with medians of rounds."""
        line, ours, theirs = self.row(), self.found[OURS], self.found[self.peer.name]
        suffix = f"{self.shape}.b{ours.batch}.{ours.dtype}.{line['pass']}"
        context = {key: line[key] for key in ("peer", "shape", "batch", "dtype", "pass", "differs")}
        context |= {"package": self.peer.package, "version": metadata.version(self.peer.package),
                    "verdict": line["verdict"], "floor": line["floor"], "rounds": line["rounds"]}
        rows = [{"quantity": "ratio", "value": ours.ratio, "low": ours.ratio_low, "high": ours.ratio_high, "unit": "1"}]
        rows += [{"quantity": name, "value": ms(t.median), "low": ms(t.low), "high": ms(t.high), "unit": "ms",
                  "n": t.n, "samples": [ms(r.value(t.name)) for r in latency.thinned(self.found.rounds) if t.median]}
                 for name, t in (("ours", ours), ("theirs", theirs))]
        why = ours.reason or theirs.reason or "not timed"
        return [row | {"suffix": suffix, "context": context} | ({} if row["value"] is not None else {"reason": why})
                for row in rows]


# --------------------------------------------------------------------------------------------- all cases
def compare(peer: Peer, shape: str, batch: int = 1, dtype: str = "float32", backward: bool = False, seed: int = 0,
            **protocol) -> Contest:
    """Ours and theirs in one interleaved run.

    Args: `shape` one of `SHAPES`, or `PYRAMID` for `SWIN`; `dtype` of weights and tokens; `backward`: forward and
        backward; `protocol` as for `latency.compare`.
    Returns: `Contest`. Raises: as `pair`, and ValueError for an unknown shape.
    """
    one_of("shape", shape, (PYRAMID,) if peer is SWIN else tuple(SHAPES))
    if peer is SWIN:
        ours, theirs = pyramids(seed)
        size = input_size(ours)[1:]
    else:
        ours, theirs = pair(peer, SHAPES[shape], seed)
        size = SHAPES[shape][:2]
    models = {peer.name: _candidate(theirs, dtype, backward), OURS: _candidate(ours, dtype, backward)}
    return Contest(peer, shape, backward, latency.compare(models, (batch, *size), seed=seed, **protocol))


def contests(mechanisms, batches=(1, 16), dtypes=("float32", "bfloat16"), seconds: float = 20.0, **protocol):
    """Every contest of some mechanisms, one after the other as they are asked for: forward at each batch, forward and
    backward at the largest; with windows also the whole pyramids. Peers that are not installed are left out.

    Args: `seconds` for each contest of layers, `PYRAMID_TIMES` as long for pyramids; the rest as `compare`.
    """
    for peer, shape, batch, dtype, backward in cases(mechanisms, batches, dtypes):
        times = PYRAMID_TIMES if shape == PYRAMID else 1
        yield compare(peer, shape, batch, dtype, backward, seconds=times * seconds, **protocol)


def cases(mechanisms, batches=(1, 16), dtypes=("float32", "bfloat16")) -> list[tuple]:
    """(peer, shape, batch, dtype, backward) of every contest, in their order."""
    passes = [(batch, False) for batch in batches] + [(max(batches), True)]
    return [(peer, shape, batch, dtype, backward)
            for peer in (*PEERS, SWIN) if peer.mechanism in mechanisms and installed(peer)
            for shape in ((PYRAMID,) if peer is SWIN else SHAPES) for dtype in dtypes for batch, backward in passes]


def units(mechanisms, batches=(1, 16), dtypes=("float32", "bfloat16")) -> int:
    """How many times the seconds of one contest of layers all contests take."""
    return sum(PYRAMID_TIMES if shape == PYRAMID else 1 for _, shape, *_ in cases(mechanisms, batches, dtypes))


def _candidate(layer: nn.Module, dtype: str, backward: bool) -> latency.Candidate:
    """A layer with its weights in `dtype`, run forward or forward and backward, and its float64 copy to agree with."""
    kind = getattr(torch, dtype)
    cast, exact = copy.deepcopy(layer).to(kind), copy.deepcopy(layer).double()

    def forward(x: Tensor) -> Tensor:
        return cast(x.to(kind))

    def both(x: Tensor) -> Tensor:
        with torch.inference_mode(False), torch.enable_grad():
            given = x.detach().clone().to(kind).requires_grad_()
            out = cast(given)
            out.sum().backward()
        return out.detach()
    return latency.Candidate("", both if backward else forward, exact, dtype, module=cast)


# --------------------------------------------------------------------------------------------- what they say
def standings(lines: list[dict]) -> list[dict]:
    """Each mechanism beside the fastest peer of the same function in every case; the whole pyramid by itself.

    Args: `lines` of `Contest.row`.
    Returns: one record a mechanism: `mean_ratio`, the geometric mean of our time over that peer's in the cases with
        enough quiet rounds for a verdict, with `text`; null with the reason where there is no such case.
    """
    fastest: dict[tuple, dict] = {}
    for line in lines:
        what = f"{line['mechanism']}_{PYRAMID}" if line["shape"] == PYRAMID else line["mechanism"]
        case = (what, *(line[key] for key in ("shape", "batch", "dtype", "pass")))
        if not line["differs"] and line["ratio"] and line["ratio"] > fastest.get(case, {"ratio": 0})["ratio"]:
            fastest[case] = line
    names = dict.fromkeys(case[0] for case in fastest)
    return [_standing(name, [line for case, line in fastest.items() if case[0] == name]) for name in names]


def _standing(name: str, lines: list[dict]) -> dict:
    """One mechanism's record from its cases."""
    beside, said = ", ".join(sorted({line["peer"] for line in lines})), name.replace("_", " ")
    judged = [line for line in lines if line["rounds"] >= latency.fewest_rounds()]
    counts = {verdict: sum(line["verdict"] == verdict for line in judged) for verdict in latency.VERDICTS[1:]}
    row = {"quantity": "mean_ratio", "value": None, "unit": "1", "n": len(judged), "suffix": name,
           "context": counts | {"mechanism": name, "not_judged": len(lines) - len(judged)}}
    why = f"{len(lines) - len(judged)} cases had fewer than {latency.fewest_rounds()} quiet rounds"
    if not judged:
        return row | {"reason": why, "text": f"{said} is not judged beside {beside}: {why}."}
    mean = math.exp(sum(math.log(line["ratio"]) for line in judged) / len(judged))
    verdicts = ", ".join(f"{verdict} in {n}" for verdict, n in counts.items() if n)
    left = f"; {why} and do not count" if len(judged) < len(lines) else ""
    return row | {"value": mean, "text": f"{said} takes {mean:.2f} of the time of the fastest peer ({beside}) on "
                                         f"average over {len(judged)} cases: {verdicts}{left}."}
