"""The mechanisms, one file each, and the one table that names them.

A mechanism is built as `ATTENTION[name](dim, num_heads, grid_size, *, layer_index=0, qkv_bias=True, attn_drop=0.0,
proj_drop=0.0, setting="faithful", **options)` and maps tokens to tokens, `(B, N, C) -> (B, N, C)`.
"""

from __future__ import annotations

from .base import Attention
from .fastformer import Fastformer
from .linformer import Linformer
from .none import NoMixing
from .performer import Performer
from .softmax import Softmax
from .window import Window
from .xca import XCA

ATTENTION: dict[str, type[Attention]] = {
    "softmax": Softmax,
    "linformer": Linformer,
    "performer": Performer,
    "fastformer": Fastformer,
    "xca": XCA,
    "window": Window,
    "none": NoMixing,
}

__all__ = ["ATTENTION", "Attention"]
