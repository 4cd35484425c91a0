"""Where the process that `latency.cold_start` starts finds its work: a name of its own, imported by nothing else."""

from .latency.coldstart import _steps

__all__ = ["_steps"]
