"""What the tests of several processes start with torchrun: one tiny training, by as many processes as were asked for.

    torchrun --nproc-per-node 2 train_together.py CACHE PROCESSES [DIE_AT_STEP [MICRO_BATCH [NAN_AT_STEP]]]
"""

import os
import sys
import time
from pathlib import Path

import torch
from torch import nn

from medbench import checkpoint, loop, survival, training

SETTINGS = survival.SETTINGS.replace(batch_size=11, epochs=3, threads=2)


def net() -> nn.Module:
    """Convolution and batch normalisation, which has to see the batch of all processes.

    Without a bias before the norm: its gradient is zero but for rounding, which Adam would make as large as any.
    """
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 6, 5, stride=4, bias=False), nn.BatchNorm2d(6), nn.GELU(), nn.Flatten(),
                         nn.Linear(294, 3))


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


def main(cache: str, processes: str, die_at: str = "-1", micro_batch: str = "0", nan_at: str = "-1") -> None:
    loop.CHECKPOINT_SECONDS = 0.0
    step, threads, steps = loop.Loop._step, set(), []

    def dies(self, number, *rest):
        steps.append(number)
        threads.add(torch.get_num_threads())
        if number == int(die_at) and os.environ.get("RANK") == "1":
            os.kill(os.getpid(), 9)
        if number == int(nan_at):
            with torch.no_grad():
                self.model[4].weight[0, 0] = float("nan")
        return step(self, number, *rest)
    loop.Loop._step = dies
    rank = os.environ.get("RANK", "0")
    cache = cache.format(rank=rank)
    if processes != "1":
        first_all_read_then_one_writes(Path(cache), rank)
    settings = SETTINGS.replace(processes=int(processes), micro_batch=int(micro_batch))
    run = training.fit(net(), survival.patterns(), settings, cache=cache, progress=False)
    Path(cache, f"rank-{rank}.txt").write_text(f"{run.digests['weights']} {threads} {len(run.history)} "
                                               f"from step {min(steps)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
