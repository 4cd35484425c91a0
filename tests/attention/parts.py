"""What the tests of all mechanisms share: awkward sizes, a mechanism to test, tokens to give it."""

import torch

from medbench.attention import ATTENTION

DIM, HEADS, GRID = 12, 3, (6, 9)  # 54 tokens, 3 heads of 4, windows of 3: no two numbers that could be swapped unseen
N = GRID[0] * GRID[1]
OPTIONS = {"window": {"window_size": 3}, "linformer": {"r": 5}, "performer": {"r": 11}}


def build(name, grid=GRID, seed=0, dim=DIM, heads=HEADS, **kwargs):
    """A mechanism in float64 with the test's sizes."""
    torch.manual_seed(seed)
    return ATTENTION[name](dim, heads, grid, **{**OPTIONS.get(name, {}), **kwargs}).double().eval()


def tokens(batch=2, num_tokens=N, dim=DIM, seed=1, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(batch, num_tokens, dim, generator=generator, dtype=torch.float64)
