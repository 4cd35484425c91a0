"""The processes of one training: one alone, or several that `torchrun` started and Hugging Face accelerate sets up.

What lives here, top to bottom: `World`, one process alone; `Group`, several; `world`, which of them, checked against
what was asked for; batch normalisation over all processes; `end_with_parent`, for those that a process starts itself.

Each process computes its share of every batch, and the gradients are summed, so that the batch, the order of images and
the steps are those of one process; only sums are rounded otherwise.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
import zlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .config import TrainingConfig
from .files import SEEN_LATE, lock

HELD = 60.0                    # seconds for a folder that another training holds
OWN_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"             # lets torchrun forget the addresses of a broken start


# --------------------------------------------------------------------------------------------- one process
class World:
    """One process, which does everything itself."""

    rank, size = 0, 1
    patience = 0.0                 # seconds until files that the first process wrote are seen

    def __init__(self, config: TrainingConfig):
        self.device = torch.device(config.device)

    @property
    def main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    @contextlib.contextmanager
    def alone_in(self, folder: Path):
        """Hold a folder among trainings; all processes of this one enter and leave together."""
        with lock(folder):
            yield

    def wrapped(self, model: nn.Module) -> nn.Module:
        """The model that is called in training, on this process' device."""
        return model.to(self.device)

    def unwrap(self, model: nn.Module) -> None:
        """Make the model again what it was before `wrapped`."""

    def wait(self) -> None:
        """Go on when all processes have come here."""

    def agree(self, what: str, value) -> None:
        """Go on when all processes have come here with the same value.

        Raises: RuntimeError: they have not, so that they would train different things.
        """

    def share(self, batch: np.ndarray) -> np.ndarray:
        """This process' part of a batch's positions: contiguous, nearly equal, perhaps empty."""
        ends = [len(batch) * rank // self.size for rank in (self.rank, self.rank + 1)]
        return batch[ends[0]:ends[1]]

    def apart(self, wrapped: nn.Module, last: bool):
        """The context of a part of a step: gradients are summed over processes only behind the last part."""
        return contextlib.nullcontext()

    def uncounted(self, model: nn.Module, empty: bool):
        """A context in which batch normalisation leaves this process' images out, if its share is `empty`."""
        return contextlib.nullcontext()

    def total(self, value: Tensor) -> Tensor:
        """A number summed over the processes."""
        return value

    def gathered(self, rows: np.ndarray, count: int) -> np.ndarray:
        """The rows (count, k) of all processes, from each one's `share` of them."""
        return rows


# --------------------------------------------------------------------------------------------- several
class Group(World):
    """One of several processes."""

    patience = SEEN_LATE

    def __init__(self, config: TrainingConfig):
        from accelerate import Accelerator
        self.accelerator = Accelerator(cpu=config.device == "cpu", mixed_precision="no")
        self.rank, self.size = self.accelerator.process_index, self.accelerator.num_processes
        if self.size != config.processes:
            raise RuntimeError(_mismatch(config.processes, self.size))
        self.device = self.accelerator.device

    @contextlib.contextmanager
    def alone_in(self, folder: Path):
        """Hold a folder among trainings; the first process holds it for all, and soon gives up where another training
        has it: the others would not wait for ever."""
        with lock(folder, HELD) if self.main else contextlib.nullcontext():
            self.wait()
            yield
            self.wait()

    def wrapped(self, model: nn.Module) -> nn.Module:
        """The model in `DistributedDataParallel`, its batch normalisation over all processes."""
        return self.accelerator.prepare_model(with_shared_norms(model).to(self.device))

    def unwrap(self, model: nn.Module) -> None:
        """Give the model its plain batch normalisation back."""
        for module in model.modules():
            if type(module) is SharedBatchNorm2d:
                module.__class__ = nn.BatchNorm2d

    def wait(self) -> None:
        """Go on when all processes have come here."""
        self.accelerator.wait_for_everyone()

    def agree(self, what: str, value) -> None:
        """Go on when all processes have come here with the same value; see `World`."""
        mine = torch.tensor([zlib.crc32(str(value).encode())], device=self.device)
        found = self.accelerator.gather(mine).tolist()
        if other := [rank for rank, said in enumerate(found) if said != found[0]]:
            raise RuntimeError(f"processes {', '.join(map(str, other))} have another {what} than process 0 (this one, "
                               f"{self.rank}: {value}); is MEDBENCH_CACHE one folder that every node sees, and are "
                               f"threads and precision named where nodes differ?")

    def apart(self, wrapped: nn.Module, last: bool):
        """The context of a part of a step; see `World`."""
        return contextlib.nullcontext() if last else wrapped.no_sync()

    @contextlib.contextmanager
    def uncounted(self, model: nn.Module, empty: bool):
        """A context in which batch normalisation leaves this process' images out, if its share is `empty`."""
        norms = [module for module in model.modules() if type(module) is SharedBatchNorm2d]
        for norm in norms:
            norm.counted = not empty
        try:
            yield
        finally:
            for norm in norms:
                norm.counted = True

    def total(self, value: Tensor) -> Tensor:
        """A number summed over the processes."""
        return self.accelerator.reduce(value.detach().to(self.device), "sum")

    def gathered(self, rows: np.ndarray, count: int) -> np.ndarray:
        """All rows, in order: every process sends as many, filled up where it has fewer."""
        most = -(-count // self.size)
        padded = np.zeros((most, rows.shape[1]), rows.dtype)
        padded[:len(rows)] = rows
        found = self.accelerator.gather(torch.from_numpy(padded).to(self.device)).cpu().numpy()
        sizes = [count * (rank + 1) // self.size - count * rank // self.size for rank in range(self.size)]
        return np.concatenate([found[rank * most:rank * most + size] for rank, size in enumerate(sizes)])


def world(config: TrainingConfig) -> World:
    """The processes of a training.

    Raises: as `check_started`.
    """
    return World(config) if check_started(config.processes) == 1 else Group(config)


def check_started(asked: int) -> int:
    """How many processes were started, for the training that `asked` wants.

    Raises: RuntimeError: others than were asked for, or such that torchrun could not start them again. ImportError:
        there is no accelerate for several.
    """
    started, restarts = (int(os.environ.get(name, value)) for name, value in (
        ("WORLD_SIZE", "1"), ("TORCHELASTIC_MAX_RESTARTS", "0")))
    if started != asked:
        raise RuntimeError(_mismatch(asked, started))
    if started > 1 and not find_spec("accelerate"):
        raise ImportError("several processes need the package accelerate; say pip install accelerate")
    if started > 1 and restarts and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        raise RuntimeError(f"--max-restarts is {restarts}, but torchrun would give addresses of processes that died to "
                           f"those that it starts again: they fail or hang (pytorch issue 167288); say "
                           f"{OWN_STORE}=1 torchrun --max-restarts {restarts} ...")
    return started


def _mismatch(asked: int, started: int) -> str:
    return (f"processes is {asked} but {started} were started; say --set processes={started}, or start as many as you "
            f"ask for" + (f": torchrun --standalone --nproc-per-node {asked} -m medbench train ... --set "
                          f"processes={asked}" if asked > 1 else ", without torchrun"))


# --------------------------------------------------------------------------------------------- batch normalisation
class SharedBatchNorm2d(nn.BatchNorm2d):
    r"""Batch normalisation whose mean and variance are those of the batch of all processes, on any device.

    $\hat x = (x - \mu) / \sqrt{\sigma^2 + \epsilon}$ (Ioffe & Szegedy 2015), $\mu$ and $\sigma^2$ from sums over
    processes that carry gradients. torch's own `SyncBatchNorm` is for GPUs alone. Where `counted` is not set, this
    process has no images of its own, and what it is given counts for nothing.
    """

    counted = True

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W), B of this process, perhaps different elsewhere. Returns: the same shape."""
        if not self.training:
            return super().forward(x)
        from torch.distributed.nn.functional import all_reduce
        wide = x.float()
        sums = torch.cat([wide.sum((0, 2, 3)), wide.square().sum((0, 2, 3)), wide.new_tensor([x.numel() / x.shape[1]])])
        sums = all_reduce(sums * float(self.counted))
        count, C = sums[-1], x.shape[1]
        mean, square = sums[:C] / count, sums[C:2 * C] / count
        variance = (square - mean**2).clamp(min=0)           # a difference of rounded numbers
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (wide * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]).to(x.dtype)


def with_shared_norms(model: nn.Module) -> nn.Module:
    """Turn every `BatchNorm2d` of a model into `SharedBatchNorm2d`, in place; names, weights and counts stay."""
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SharedBatchNorm2d
        elif isinstance(module, nn.modules.batchnorm._BatchNorm) and not isinstance(module, SharedBatchNorm2d):
            raise ValueError(f"{type(module).__name__} has no form for several processes; train this model with "
                             f"processes=1, or with LayerNorm or BatchNorm2d")
    return model


# --------------------------------------------------------------------------------------------- a process and its parent
def end_with_parent(_: int = 0) -> None:
    """Let this process end as soon as the one that started it is gone: who is killed must not leave work behind.

    torch's own workers look at their parent's number now and then. But they learn it late: a parent that is killed
    while they start leaves them behind for ever, and one whose workers come from a fork server always does.
    """
    parent, number = multiprocessing.parent_process(), os.getppid()

    def watch():
        while parent.is_alive() and os.getppid() == number:  # a fork of the parent may hide its end from the first
            parent.join(2.0)
        os._exit(1)
    threading.Thread(target=watch, daemon=True).start()
