r"""Other people's layers of the same mechanisms, for holding ours against them: same shapes, same weights, one run.

What lives here, top to bottom: `Peer`; how each layer of theirs is built and takes our weights; the table `PEERS`, and
`SWIN`, a whole model; `pair` and `pyramids`, both sides ready to be timed. `contests.py` times them.

Where a peer computes the same function and takes our weights, its output is checked against ours before anything is
timed. Where it computes another function, `differs` says how, and its time is no yardstick.
"""

from __future__ import annotations

import copy
import functools
import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

import torch
from torch import Tensor, nn

from .attention import ATTENTION
from .backbone import LAYER_NORM_EPS
from .models import build_model, input_size

SHAPES = {"stage1": (1024, 96, 3), "stage3": (64, 384, 12)}         # tokens N, channels C, heads h of the large pyramid
PYRAMID = "pyramid"                                                 # in place of a shape: the whole large model
SAME = 1e-5                                                         # largest error / largest output, in float64


# --------------------------------------------------------------------------------------------- the table
@dataclass(frozen=True)
class Peer:
    """One layer of somebody else's.

    `package` as pip names it; `build(ours)` makes their layer for the shape of ours, weights copied where they fit;
    `qkv_bias` is what ours has to be built with to match; `differs` how its function is another one.
    """

    name: str
    mechanism: str
    package: str
    build: Callable[[nn.Module], nn.Module]
    qkv_bias: bool = True
    differs: str = ""


def _theirs(module: str, name: str):
    """Somebody's class, without the warnings of its imports."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return getattr(importlib.import_module(module), name)


# --------------------------------------------------------------------------------------------- wrappers
class OnTokens(nn.Module):
    """A layer with a call of its own, called with tokens `(B, N, C)` alone."""

    def __init__(self, layer: nn.Module, call: Callable[[nn.Module, Tensor], Tensor]):
        super().__init__()
        self.layer, self.call = layer, call

    def forward(self, x: Tensor) -> Tensor:
        """Tokens to tokens."""
        return self.call(self.layer, x)


# --------------------------------------------------------------------------------------------- softmax
def torch_softmax(ours):
    """`torch.nn.MultiheadAttention`, whose fast path is one operator."""
    layer = nn.MultiheadAttention(ours.dim, ours.num_heads, batch_first=True)
    _copy(layer, {"in_proj_weight": ours.qkv.weight, "in_proj_bias": ours.qkv.bias, "out_proj.weight": ours.proj.weight,
                  "out_proj.bias": ours.proj.bias})
    return OnTokens(layer, lambda layer, x: layer(x, x, x, need_weights=False)[0])


def timm_softmax(ours):
    """timm's `Attention`, with torch's fused operator."""
    layer = _theirs("timm.layers", "Attention")(ours.dim, ours.num_heads, qkv_bias=True)
    layer.load_state_dict(ours.state_dict())
    return layer


def lucidrains_softmax(ours):
    """vit-pytorch's `Attention`, without its LayerNorm."""
    layer = _theirs("vit_pytorch.vit", "Attention")(ours.dim, ours.num_heads, ours.head_dim)
    layer.norm = nn.Identity()
    _copy(layer, {"to_qkv.weight": ours.qkv.weight, "to_out.0.weight": ours.proj.weight,
                  "to_out.0.bias": ours.proj.bias})
    return layer


# --------------------------------------------------------------------------------------------- the efficient ones
def lucidrains_linformer(ours):
    """PyPI's `linformer`: one projection of keys and one of values, shared by the heads, as ours."""
    layer = _theirs("linformer.linformer", "LinformerSelfAttention")(
        ours.dim, seq_len=ours.num_tokens, k=ours.r, heads=ours.num_heads)
    q, k, v = ours.qkv.weight.chunk(3)
    _copy(layer, {"to_q.weight": q, "to_k.weight": k, "to_v.weight": v, "proj_k": ours.E.T, "proj_v": ours.F.T,
                  "to_out.weight": ours.proj.weight, "to_out.bias": ours.proj.bias})
    return layer


def lucidrains_performer(ours):
    """PyPI's `performer-pytorch`, with as many features and the same W."""
    layer = _theirs("performer_pytorch.performer_pytorch", "SelfAttention")(
        ours.dim, heads=ours.num_heads, dim_head=ours.head_dim, nb_features=ours.r, qkv_bias=True, attn_out_bias=True)
    (q, k, v), (bq, bk, bv) = ours.qkv.weight.chunk(3), ours.qkv.bias.chunk(3)
    _copy(layer, {"to_q.weight": q, "to_k.weight": k, "to_v.weight": v, "to_q.bias": bq, "to_k.bias": bk,
                  "to_v.bias": bv, "to_out.weight": ours.proj.weight, "to_out.bias": ours.proj.bias,
                  "fast_attention.projection_matrix": ours.W})
    return layer


def lucidrains_fastformer(ours):
    """PyPI's `fast-transformer-pytorch`."""
    layer = _theirs("fast_transformer_pytorch.fast_transformer_pytorch", "FastAttention")(
        ours.dim, heads=ours.num_heads, dim_head=ours.head_dim)
    return OnTokens(layer, lambda layer, x: layer(x, mask=torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)))


def timm_xca(ours):
    """timm's `XCA` with its fused path switched on."""
    timm = importlib.import_module("timm.layers.config")
    before = timm.use_fused_attn(), timm.use_fused_attn(experimental=True)
    timm.set_fused_attn(True, experimental=True)
    try:
        layer = _theirs("timm.models.xcit", "XCA")(ours.dim, ours.num_heads, qkv_bias=True)
    finally:
        timm.set_fused_attn(before[0], experimental=before[1])
    layer.load_state_dict(ours.state_dict())
    return layer


def lucidrains_xca(ours):
    """vit-pytorch's `XCAttention`, without its LayerNorm; it takes the logarithm of the temperature."""
    layer = _theirs("vit_pytorch.xcit", "XCAttention")(ours.dim, ours.num_heads, ours.head_dim)
    layer.norm = nn.Identity()
    _copy(layer, {"to_qkv.weight": ours.qkv.weight, "temperature": ours.temperature.log(),
                  "to_out.0.weight": ours.proj.weight, "to_out.0.bias": ours.proj.bias})
    return layer


def timm_window(ours):
    """The attention of timm's Swin block: its windows, its shift, its bias."""
    block = _theirs("timm.models.swin_transformer", "SwinTransformerBlock")(
        ours.dim, ours.grid_size, ours.num_heads, window_size=ours.window_size, shift_size=max(ours.shift_size))
    block.attn.load_state_dict(ours.state_dict(), strict=False)              # but for our mask and our index
    grid = ours.grid_size
    return OnTokens(block, lambda block, x: block._attn(x.unflatten(1, grid)).flatten(1, 2))


def timm_swin(ours):
    """timm's `SwinTransformer` of our pyramid's shape. It adds no position to the tokens: ours must have none."""
    config = ours.config
    model = _theirs("timm.models.swin_transformer", "SwinTransformer")(
        config.img_size, config.patch_size, config.in_chans, config.num_classes, embed_dim=config.embed_dims[0],
        depths=config.depths, num_heads=config.num_heads, window_size=dict(config.options)["window_size"],
        mlp_ratio=config.mlp_ratio, drop_path_rate=0.0, norm_layer=functools.partial(nn.LayerNorm, eps=LAYER_NORM_EPS))
    names = {"stem.": "patch_embed.", "stages.": "layers.", "head.": "head.fc."}
    tensors = {}
    for name, tensor in ours.state_dict().items():
        start = next((start for start in names if name.startswith(start)), "")
        tensor = _down_the_columns(tensor) if ".downsample." in name else tensor
        tensors[names.get(start, "") + name.removeprefix(start)] = tensor
    _copy(model, {name: tensor for name, tensor in tensors.items() if ".position." not in name})
    return model


def _down_the_columns(merged: Tensor) -> Tensor:
    """A patch merge's tensor for timm's order of the 2 x 2 neighbours: down the columns, ours along the rows."""
    return merged.unflatten(-1, (2, 2, -1)).transpose(-3, -2).flatten(-3)


def _copy(layer: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Our weights into theirs, by their names; every parameter of theirs must be among them."""
    own = dict(layer.named_parameters()) | dict(layer.named_buffers())
    missing = {name for name, _ in layer.named_parameters()} - set(tensors)
    if missing:
        raise ValueError(f"{type(layer).__name__} has {', '.join(sorted(missing))}, which nothing of ours fills")
    with torch.no_grad():
        for name, tensor in tensors.items():
            own[name].copy_(tensor)


PEERS = (
    Peer("nn.MultiheadAttention", "softmax", "torch", torch_softmax),
    Peer("timm", "softmax", "timm", timm_softmax),
    Peer("vit-pytorch", "softmax", "vit-pytorch", lucidrains_softmax, qkv_bias=False),
    Peer("linformer", "linformer", "linformer", lucidrains_linformer, qkv_bias=False),
    Peer("performer-pytorch", "performer", "performer-pytorch", lucidrains_performer,
         differs="adds 1e-4 to every feature, which pulls the output towards the mean of the values"),
    Peer("fast-transformer-pytorch", "fastformer", "fast-transformer-pytorch", lucidrains_fastformer, qkv_bias=False,
         differs="pools raw keys in place of keys times the global query"),
    Peer("timm", "xca", "timm", timm_xca),
    Peer("vit-pytorch", "xca", "vit-pytorch", lucidrains_xca, qkv_bias=False),
    Peer("timm", "window", "timm", timm_window),
)
SWIN = Peer("timm SwinTransformer", "window", "timm", timm_swin)


# --------------------------------------------------------------------------------------------- side by side
def pair(peer: Peer, shape: tuple[int, int, int], seed: int = 0, **options) -> tuple[nn.Module, nn.Module]:
    """Ours and theirs of one shape `(N, C, h)`, in evaluation mode, with the same weights where they fit.

    Args: `options` of the mechanism, such as `layer_index=1` for a shifted window.
    Raises: ModuleNotFoundError: the peer's package is not installed; ValueError: it says to compute the same and does
        not.
    """
    N, C, h = shape
    side = int(N**0.5)
    torch.manual_seed(seed)
    ours = ATTENTION[peer.mechanism](C, h, (side, N // side), qkv_bias=peer.qkv_bias, **options).eval()
    return ours, _checked(peer, ours, torch.randn(2, N, C, dtype=torch.float64))


def pyramids(seed: int = 0, preset: str = "paper") -> tuple[nn.Module, nn.Module]:
    """Our window pyramid, with no position added to its tokens, and timm's Swin of that shape with its weights."""
    ours = build_model("window", preset, seed=seed).eval()
    with torch.no_grad():
        ours.stem.position.weight.zero_()
        ours.stem.position.bias.zero_()
    size = input_size(ours, 2)
    x = torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return ours, _checked(SWIN, ours, x)


def _checked(peer: Peer, ours: nn.Module, x: Tensor) -> nn.Module:
    """Theirs, if it computes what it says to."""
    theirs = peer.build(ours).eval()
    with torch.inference_mode():
        got, wanted = copy.deepcopy(theirs).double()(x), copy.deepcopy(ours).double()(x)
    error = float((got - wanted).abs().max() / wanted.abs().max())
    if not peer.differs and error > SAME:
        raise ValueError(f"{peer.name} of {peer.package} differs from our {peer.mechanism} by {error:.2g} of the "
                         f"largest output; wanted at most {SAME:g}")
    return theirs


def installed(peer: Peer) -> bool:
    """Whether the peer's package is there."""
    try:
        return bool(metadata.version(peer.package))
    except metadata.PackageNotFoundError:
        return False
