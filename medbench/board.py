"""A table in the terminal that shows how far each training of a grid is, and how long the rest will take.

What lives here: `Board`. A row is a model, a column a seed or another setting. It goes to standard error, and from a
notebook to the terminal behind it; where that is no terminal, one line is printed for each training that is over.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from .files import terminal

MARKS = {"waiting": "\u00b7", "running": "0 %", "finished": "done", "loaded": "had", "failed": "failed"}


class Board:
    """The jobs of a grid, shown while its `with` block runs; `update` draws them anew."""

    def __init__(self, jobs: Sequence, show: bool = True):
        self.jobs, self.began = jobs, time.monotonic()
        self.stream = terminal() if show else None
        self.first, self.told, self.live = {job: job.share() for job in jobs}, set(), None

    def __enter__(self):
        if self.stream is not None and self.stream.isatty():
            from rich.console import Console
            from rich.live import Live
            self.live = Live(self._table(), console=Console(file=self.stream), refresh_per_second=1)
            self.live.__enter__()
        return self

    def __exit__(self, *error):
        if self.live:
            self.live.update(self._table())
            self.live.__exit__(*error)

    def update(self) -> None:
        """Show how the jobs stand now."""
        if self.live:
            self.live.update(self._table())
        elif self.stream is not None:
            for job in self.jobs:
                if job.over and job not in self.told:
                    self.told.add(job)
                    print(f"{job.title}: {job.state}; {self.conclusion()}", file=self.stream, flush=True)

    def conclusion(self) -> str:
        """How many are over, and about how long the rest will take."""
        shares = {job: job.share() for job in self.jobs}
        done = sum(max(0.0, shares[job] - self.first[job]) * job.size for job in self.jobs)  # one may begin anew
        todo = sum((1 - shares[job]) * job.size for job in self.jobs if job.state != "failed")
        elapsed = time.monotonic() - self.began
        left = f", about {in_words(elapsed * todo / done)} left" if done and todo else ""
        failed = sum(job.state == "failed" for job in self.jobs)
        return (f"{sum(job.over for job in self.jobs)} of {len(self.jobs)} trainings over"
                + (f", {failed} of them failed" if failed else "") + left)

    def _table(self):
        from rich.table import Table
        columns = list(dict.fromkeys(job.column for job in self.jobs))
        table = Table("model", *columns, caption=self.conclusion())
        cells: dict[str, dict[str, str]] = {}
        for job in self.jobs:
            share = job.share()
            state = job.state if job.over or job.begun else "waiting"        # a cluster may have no room for it yet
            text = f"{share:.0%}" if not job.over and share else MARKS[state]
            cells.setdefault(job.name, {})[job.column] = text
        for name, row in cells.items():
            table.add_row(name, *(row.get(column, "") for column in columns))
        return table


def in_words(seconds: float) -> str:
    """A time such as `40 s`, `12 min` or `3 h 5 min`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
