"""What the tests of several processes start with torchrun: one tiny training, by as many processes as were asked for.

    torchrun --nproc-per-node 2 train_together.py CACHE PROCESSES [NAME=VALUE ...]

`model`: one of medbench's in place of the net below; `bits` of its numbers, 16 (bfloat16), 32 or 64. `micro_batch`:
images at once in each process. `nan_at`: before this step, a weight becomes NaN in all. What happens to the second
process alone: `die_at`, it is killed at this step; `nan_seen_at`, from this step on layer 2 answers NaN to its images;
`bears`, with more images at once its memory runs out.
"""

import os
import sys
import time
from pathlib import Path

import torch
from torch import nn

from medbench import checkpoint, loop, survival, training
from medbench.models import build_model

SETTINGS = survival.SETTINGS.replace(batch_size=11, epochs=3, threads=2)


def net() -> nn.Module:
    """Convolution and batch normalisation, which has to see the batch of all processes.

    Without a bias before the norm: its gradient is zero but for rounding, which Adam would make as large as any.
    """
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 6, 5, stride=4, bias=False), nn.BatchNorm2d(6), nn.GELU(), nn.Flatten(),
                         nn.Linear(294, 3))


def with_bits(bits: int) -> None:
    """Compute in float64 throughout, where a training asks for float32."""
    if bits == 64:
        torch.set_default_dtype(torch.float64)
        torch.Tensor.float = torch.Tensor.double


def first_all_read_then_one_writes(cache: Path, rank: str) -> None:
    """Let the second process be slow to read, and the first one stop if it writes a state meanwhile."""
    load, save, has_read = checkpoint.load_state, checkpoint.save_state, cache / f"has-read-{os.getppid()}"

    def slowly(*arguments):
        if rank == "1":
            time.sleep(0.5)
        found = load(*arguments)
        if rank == "1":
            has_read.touch()
        return found

    def watched(*arguments):
        assert has_read.exists(), "a state was written while another process read"
        return save(*arguments)
    checkpoint.load_state, checkpoint.save_state = slowly, watched


def main(cache: str, processes: str, model: str = "", bits: int = 32, micro_batch: int = 0, nan_at: int = -1,
         die_at: int = -1, nan_seen_at: int = -1, bears: int = 99) -> None:
    loop.CHECKPOINT_SECONDS = 0.0
    with_bits(bits)
    rank = os.environ.get("RANK", "0")
    second, step, loss, threads, steps = rank == "1", loop.Loop._step, loop.Loop._loss, set(), []

    def happens(self, number, *rest):
        steps.append(number)
        threads.add(torch.get_num_threads())
        if second and number == die_at:
            os.kill(os.getpid(), 9)
        if number == nan_at:
            with torch.no_grad():
                self.model[4].weight[0, 0] = float("nan")
        if second and number == nan_seen_at:
            self.model[2].register_forward_hook(lambda module, inputs, output: output * float("nan"))
        return step(self, number, *rest)

    def is_short(self, images, labels):
        if second and len(images) > bears:
            raise MemoryError
        return loss(self, images, labels)
    loop.Loop._step, loop.Loop._loss = happens, is_short
    cache = cache.format(rank=rank)
    if processes != "1":
        first_all_read_then_one_writes(Path(cache), rank)
    settings = SETTINGS.replace(processes=int(processes), micro_batch=micro_batch,
                                precision="bfloat16" if bits == 16 else "float32")
    made, data = net(), survival.patterns()
    if model:
        made, data = build_model(model, "smoke", num_classes=3), survival.patterns(side=112)
    run = training.fit(made, data, settings, cache=cache, progress=False)
    Path(cache, f"rank-{rank}.txt").write_text(f"{run.digests['weights']} {threads} {len(run.history)} "
                                               f"from step {min(steps)}")


if __name__ == "__main__":
    words = [word.split("=") for word in sys.argv[3:]]
    main(*sys.argv[1:3], **{name: value if name == "model" else int(value) for name, value in words})
