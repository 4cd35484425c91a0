"""Exercises of chapter 07: cross-covariance attention, and what duplicated tokens change."""

from __future__ import annotations

import torch

from .judging import Exercise, Mistake, as_tensor, demand, error, randn


def attention(answer) -> str:
    """`answer(q, k, v, temperature)`: XCA's mixing, equal to timm's with its own weights."""
    from timm.models.xcit import XCA

    timms = XCA(12, num_heads=3, qkv_bias=True).double().eval()
    with torch.no_grad():
        timms.temperature.copy_(torch.tensor([0.5, 2.0, 6.0]).view(3, 1, 1))
        x = randn(2, 35, 12, seed=1)
        q, k, v = timms.qkv(x).view(2, 35, 3, 3, 4).permute(2, 0, 3, 1, 4)
        got = as_tensor(answer(q, k, v, timms.temperature), q)
        _name_the_mistake(got, q, k, v, timms.temperature)
        through = timms.proj(got.transpose(1, 2).flatten(2))
        off = error(through, timms(x))
        demand(off <= 1e-12, f"off by {off:.1e} from timm's XCA with the same weights; wanted at most 1e-12")
        scale = torch.tensor([1.0, 10.0, 0.1, 3.0], dtype=q.dtype)
        demand(error(answer(q * scale, k, v, timms.temperature), got) <= 1e-10,
               "rescaling a channel of q over all tokens changes the output: unit length removes such a scale")
    return "equal to timm's XCA with its weights; rescaling a channel of q over the tokens changes nothing"


def duplicates(answer) -> str:
    """The answer is the set of names among the six mechanisms whose outputs stay when every token is given twice."""
    try:
        given = {str(name).strip().lower() for name in ([answer] if isinstance(answer, str) else answer)}
    except TypeError:
        raise Mistake(f"the answer is a {type(answer).__name__}; wanted a set of names such as {{'softmax'}}") from None
    from ...config import MECHANISMS

    unknown = given - set(MECHANISMS)
    demand(not unknown, f"there is no mechanism {', '.join(sorted(unknown))}; the six are {', '.join(MECHANISMS)}")
    why = {"linformer": "Linformer is built for one N: E has a column for each token, and twice as many do not fit",
           "window": "windows are cut from a grid of one size; twice as many tokens make no such grid",
           "softmax": "softmax: each weight appears twice above and twice in the normaliser",
           "performer": "Performer: both sums over the keys double, and their quotient stays",
           "fastformer": "Fastformer: alpha and beta halve, and there are twice as many terms",
           "xca": "XCA: the unit length takes the factor out of the sum over the tokens"}
    stay = _unmoved_by_duplicates(MECHANISMS)
    for name in MECHANISMS:
        demand((name in given) == (name in stay), f"{'not ' if name in given else ''}{name}: think again. {why[name]}")
    return "softmax, Performer, Fastformer and XCA, as running all six shows"


def _name_the_mistake(got, q, k, v, t) -> None:
    unit = torch.nn.functional.normalize
    A = unit(q, dim=-2).mT @ unit(k, dim=-2) * t
    planted = {
        "the norm runs over the channels of a token; each channel must have unit length over the tokens (dim=-2)":
            v @ (unit(q, dim=-1).mT @ unit(k, dim=-1) * t).softmax(-1).mT,
        "there is no unit length: q and k are used as they are": v @ (q.mT @ k * t).softmax(-1).mT,
        "the temperature is missing": v @ (A / t).softmax(-1).mT,
        "the temperature divides; timm's, like the authors' code, multiplies": v @ (A / t / t).softmax(-1).mT,
        "the softmax runs over the query channels; the weights of one output channel must sum to 1 over the key "
        "channels": v @ A.softmax(-2).mT,
        "A is applied the wrong way round: output channel i is the sum over j of A_ij v_j": v @ A.softmax(-1),
        "this is attention between tokens: XCA's matrix is d x d":
            (unit(q, dim=-2) @ unit(k, dim=-2).mT * t).softmax(-1) @ v,
    }
    for mistake, planted_output in planted.items():
        demand(error(got, planted_output) > 1e-9, mistake)


def _unmoved_by_duplicates(names) -> set[str]:
    from ... import mixing
    from ...attention import ATTENTION

    def moved(name):
        layer = ATTENTION[name](12, 3, (4, 4), **({"window_size": 2} if name == "window" else {})).double().eval()
        try:
            return mixing.duplication_error(layer, randn(1, 16, 12, seed=2)) > 1e-10
        except (ValueError, RuntimeError):
            return True

    return {name for name in names if not moved(name)}


EXERCISES = {"xca.attention": Exercise(attention), "xca.duplicates": Exercise(duplicates, wanted=set)}
