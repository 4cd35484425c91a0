r"""What all mechanisms share: the projections around the mixing, the checks, the two settings.

Symbols, here and in every file beside this one: $B$ images, $N$ tokens (row-major over the grid), $C$ channels
(`dim`), $h$ heads, $d = C/h$ channels per head, $r$ the projected length (Linformer) or the number of random
features (Performer), $M$ tokens in one window.

A mechanism says how $q, k, v$ mix and what that costs. It is a subclass that defines

- `setup(**options)`: its own options, parameters and buffers,
- `mix(q, k, v)`: its equation,
- `mixing_macs(num_tokens)`: its cost in closed form,

and, where needed, `check_options`, `init_weights`, `SEED` (the study's variant), `refuses_attn_drop` and
`undecayed`.
"""

from __future__ import annotations

import inspect

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checks import in_range, one_of, whole
from ..config import SETTINGS

# fewest and most logits for which bf16 is quicker written out, without and with gradients: measured around layers with
# heads of 32 channels, on two cores of a CPU
WRITTEN_OUT = {False: (2**16, 2**22), True: (0, 2**23)}


def attend(q: Tensor, k: Tensor, v: Tensor, drop: float = 0.0, bias: Tensor | None = None) -> Tensor:
    r"""$\mathrm{softmax}(QK^\top/\sqrt d + b)\,V$, fused into one call except where that is slower.

    On a CPU it is slower in bf16 for as many logits as `WRITTEN_OUT` says, and where $b$ is learned: the fused operator
    has no gradient for it. In fp32 a single call is quicker written out for few tokens too, but the layer around it is
    not.

    Args:
        q, k, v: `(B, h, N, d)`, `(B, h, r, d)` and `(B, h, r, d)`.
        drop: dropout rate of the softmax.
        bias: $b$, `(1, h, N, r)`, or `(g, h, N, r)` with g that divides B: each g in a row take one each.

    Returns:
        `(B, h, N, d)`.
    """
    if q.device.type == "cpu" and (_quicker_in_bf16(q, k) or bias is not None and bias.requires_grad):
        scale, k, v = q.shape[-1] ** -0.5, k.contiguous().flatten(0, 1).transpose(1, 2), v.contiguous().flatten(0, 1)
        if bias is None:
            A = torch.bmm(q.flatten(0, 1) * scale, k)                                # (B * h, N, r)
        else:
            b = bias.expand(len(q) // len(bias), *bias.shape).flatten(0, 2)
            A = torch.baddbmm(b, q.flatten(0, 1), k, alpha=scale)
        return torch.bmm(F.dropout(A.softmax(-1), drop, training=drop > 0), v).view_as(q)
    if bias is not None and 1 < len(bias) < len(q):
        bias = bias.repeat(len(q) // len(bias), 1, 1, 1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=drop)


def _quicker_in_bf16(q: Tensor, k: Tensor) -> bool:
    (fewest, most), logits = WRITTEN_OUT[q.requires_grad], q.shape[:-1].numel() * k.shape[-2]
    return q.dtype == torch.bfloat16 and fewest <= logits <= most


class Attention(nn.Module):
    r"""A mechanism that maps tokens to tokens, $(B, N, C) \to (B, N, C)$: $\mathrm{proj}(\mathrm{mix}(q, k, v))$.

    Args:
        dim: channels $C$.
        num_heads: heads $h$; divides `dim`.
        grid_size: (height, width) of the grid of tokens; $N$ is their product.
        layer_index: number of the block within its stage; windows shift on the odd ones.
        qkv_bias: whether the projection to $q, k, v$ has a bias.
        attn_drop: dropout rate of the attention matrix; raises when not 0 where no such matrix exists.
        proj_drop: dropout rate after the output projection.
        setting: `"faithful"`, as the mechanism's paper defines it, or `"seed"`, as the 2022 study computed it.
        **options: the mechanism's own, which its `setup` names; an unknown one raises.

    Raises:
        ValueError: for an unknown option or an impossible combination, before anything is allocated.
    """

    SEED: type[Attention] | None = None  # the study's variant, a subclass; None: the study computed the same
    refuses_attn_drop: str = ""          # why a mechanism has no use for attn_drop; empty: it has
    undecayed: tuple[str, ...] = ()      # its own parameters that weight decay leaves alone

    def __new__(cls, *args, setting: str = "faithful", **kwargs):
        """Choose the subclass that `setting` names."""
        return super().__new__(cls.variant(setting))

    def __init__(
        self,
        dim: int,
        num_heads: int,
        grid_size: tuple[int, int],
        *,
        layer_index: int = 0,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        setting: str = "faithful",
        **options,
    ):
        self.check(dim, num_heads, grid_size, attn_drop=attn_drop, proj_drop=proj_drop, setting=setting, **options)
        super().__init__()
        self.dim, self.num_heads, self.head_dim = dim, num_heads, dim // num_heads
        self.grid_size, self.num_tokens = tuple(grid_size), grid_size[0] * grid_size[1]
        self.layer_index = layer_index
        self.add_projections(qkv_bias)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj_drop = nn.Dropout(proj_drop)
        self.local = nn.Identity()  # a residual step of the block after this one; only XCA can fill it
        self.setup(**options)
        self.init_weights()

    # ------------------------------------------------------------------ what a mechanism defines
    def setup(self) -> None:
        """Create the mechanism's own parameters and buffers. The arguments are the mechanism's own options."""

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The mechanism's equation on `(B, h, N, d)` tensors; returns `(B, h, N, d)`."""
        raise NotImplementedError

    def mixing_macs(self, num_tokens: int) -> int:
        """Multiply-adds of the mixing alone, one image, in closed form; `projection_macs` come on top."""
        raise NotImplementedError

    def projection_macs(self, num_tokens: int) -> int:
        """Multiply-adds of `qkv` and `proj`, one image, in closed form: 4NC²."""
        return 4 * num_tokens * self.dim**2

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Draw the mechanism's own parameters and random buffers; `qkv` and `proj` belong to the skeleton."""

    @classmethod
    def check_options(cls, dim: int, num_heads: int, grid_size: tuple[int, int]) -> None:
        """Refuse values of the mechanism's own options, which follow by keyword."""

    # ------------------------------------------------------------------ what all share
    def add_projections(self, qkv_bias: bool) -> None:
        """The linear maps before and after the mixing."""
        self.qkv = nn.Linear(self.dim, 3 * self.dim, bias=qkv_bias)
        self.proj = nn.Linear(self.dim, self.dim)

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v of tokens `(B, N, C)`, each `(B, h, N, d)`."""
        B, N, _ = x.shape
        return self.qkv(x).view(B, N, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)

    def merge_heads(self, x: Tensor) -> Tensor:
        """`(B, h, N, d)` back to `(B, N, C)`."""
        return x.transpose(1, 2).flatten(2)

    def forward(self, x: Tensor) -> Tensor:
        """Mix the tokens `(B, N, C)` of each image; returns `(B, N, C)`."""
        q, k, v = self.heads(x)
        x = self.merge_heads(self.mix(q, k, v))
        return self.proj_drop(self.proj(x))

    @property
    def drop_now(self) -> float:
        """The rate at which the attention matrix is dropped: `attn_drop` in training, else 0."""
        return self.attn_drop.p if self.training else 0.0

    def check_tokens(self, num_tokens: int) -> None:
        """Refuse another number of tokens than the grid's, for mechanisms that are built for one grid."""
        if num_tokens != self.num_tokens:
            raise ValueError(f"{type(self).__name__} was built for a {self.grid_size} grid ({self.num_tokens} tokens) "
                             f"but received {num_tokens}; build the model with the images' img_size")

    # ------------------------------------------------------------------ settings and checks
    @classmethod
    def variant(cls, setting: str) -> type[Attention]:
        """The class that computes the mechanism in that setting."""
        one_of("setting", setting, SETTINGS)
        return cls.SEED if setting == "seed" and cls.SEED else cls

    @classmethod
    def option_names(cls) -> tuple[str, ...]:
        """Names of the mechanism's own options."""
        return tuple(name for name in inspect.signature(cls.setup).parameters if name != "self")

    @classmethod
    def check(cls, dim, num_heads, grid_size, *, attn_drop=0.0, proj_drop=0.0, setting="faithful", **options) -> None:
        """Refuse what cannot be built, naming what came, what is allowed and what to do; allocates nothing."""
        variant = cls.variant(setting)
        allowed = variant.option_names()
        for name in options:
            if name not in allowed:
                raise ValueError(f"{cls.__name__} (setting {setting!r}) has no option {name!r}; "
                                 f"it has: {', '.join(allowed) or 'none of its own'}")
        if not isinstance(grid_size, (tuple, list)) or len(grid_size) != 2:
            raise ValueError(f"grid_size is {grid_size!r}; wanted (height, width) in tokens")
        for field, value in (("grid_size", grid_size[0]), ("grid_size", grid_size[1]), ("dim", dim),
                             ("num_heads", num_heads)):
            whole(field, value)
        if dim % num_heads:
            raise ValueError(f"num_heads {num_heads} does not divide dim {dim}; choose heads that divide it")
        in_range("attn_drop", attn_drop, 0, 1)
        in_range("proj_drop", proj_drop, 0, 1)
        if attn_drop and variant.refuses_attn_drop:
            raise ValueError(f"attn_drop is {attn_drop} but {cls.__name__} {variant.refuses_attn_drop}; "
                             f"use attn_drop=0 (proj_drop and drop_path_rate work)")
        variant.check_options(dim, num_heads, tuple(grid_size), **options)
