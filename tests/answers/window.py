"""Planted answers to the exercises of chapter 08."""

import torch


def cut(grid, w):
    H, W = grid.shape
    return grid.view(H // w, w, W // w, w).transpose(1, 2).reshape(-1, w * w)


def regions(side, w, shift):
    return torch.tensor([0] * (side - w) + [1] * (w - shift) + [2] * shift) if side > w else torch.zeros(side).long()


def by_regions(H, W, w, below=-100.0):
    label = cut(3 * regions(H, w, w // 2)[:, None] + regions(W, w, w // 2), w)
    return (label[:, :, None] != label[:, None]) * below


def by_rolling(H, W, w):
    """Give each token its place, roll the places, and let pass what is still near enough to have been one window."""
    y, x = torch.meshgrid(torch.arange(H), torch.arange(W), indexing="ij")
    y, x = (cut(p.roll([-(w // 2) * (side > w) for side in (H, W)], (0, 1)), w) for p in (y, x))
    near = ((y[:, :, None] - y[:, None]).abs() < w) & ((x[:, :, None] - x[:, None]).abs() < w)
    return near


def rows_only(H, W, w):
    label = cut(regions(H, w, w // 2)[:, None].expand(H, W), w)
    return (label[:, :, None] != label[:, None]) * -100.0


def exchanged(H, W, w):
    label = 3 * regions(W, w, w // 2)[:, None] + regions(H, w, w // 2)
    label = cut(label.contiguous(), w)
    return (label[:, :, None] != label[:, None]) * -100.0


def compose(grid, w, depth, shifted=lambda block: block % 2, wrap=False):
    (H, W), total = grid, torch.eye(grid[0] * grid[1])
    for block in range(depth):
        def part(side, block=block):
            step = w // 2 if shifted(block) and w < side else 0
            place = torch.arange(side) - step
            return ((place % side if wrap else place) / w).floor()
        window = (part(H)[:, None] * 99 + part(W)).flatten()
        total = (window[:, None] == window).float() @ total
    return total > 0


def by_walking(grid, w, depth):
    """From each output back to the inputs, block by block."""
    H, W = grid

    def mates(y, x, block):
        sy, sx = (w // 2 if block % 2 and w < side else 0 for side in grid)
        return [(a, b) for a in range(H) for b in range(W)
                if (a - sy) // w == (y - sy) // w and (b - sx) // w == (x - sx) // w]

    pattern = torch.zeros(H * W, H * W, dtype=torch.bool)
    for y in range(H):
        for x in range(W):
            heard = {(y, x)}
            for block in reversed(range(depth)):
                heard = {mate for place in heard for mate in mates(*place, block)}
            for a, b in heard:
                pattern[y * W + x, a * W + b] = True
    return pattern


RIGHT = {"window.shift_mask": [by_regions, by_rolling], "window.reach": [compose, by_walking]}
WRONG = {
    "window.shift_mask": [(lambda H, W, w: torch.zeros(H * W // w**2, w * w, w * w), "blocks nothing"),
                          (rows_only, "opposite edges may still talk"),
                          (lambda H, W, w: by_regions(H, W, w, below=-10.0), "still passes a gradient"),
                          (lambda H, W, w: ~by_rolling(H, W, w), "wrong way round"),
                          (exchanged, "exchanged"),
                          (lambda H, W, w: by_regions(H, W, w)[0], "shape")],
    "window.reach": [(lambda grid, w, depth: compose(grid, w, depth, lambda block: False), "that of a single block"),
                     (lambda grid, w, depth: compose(grid, w, depth, lambda block: block % 2 == 0), "wrong blocks"),
                     (lambda grid, w, depth: compose(grid, w, depth, wrap=True), "opposite edges talk"),
                     (lambda grid, w, depth: compose(grid, w, 1), "that of a single block"),
                     (lambda grid, w, depth: torch.ones(grid[0] * grid[1], grid[0] * grid[1]), "non-zero entries")],
}
