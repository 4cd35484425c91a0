r"""How long models take on this device, side by side, so that differences between them can be believed.

In the order of reading: `timing.py`, how one call is timed and whether the machine was quiet; `comparison.py`, what
comes out; `candidates.py`, what can be timed; `judging.py`, from rounds to verdicts; `protocol.py`, which puts them
together.
Beside it: `limits.py`, this device's limits; `memory.py` and `energy.py`, at the peak and for each image;
`coldstart.py`, a process from nothing; `processes.py`, how work gets into a new process; `selftest.py`, whether the
protocol sees differences where there are none.
"""

from .candidates import Candidate, graphed
from .coldstart import ColdStart, cold_start
from .comparison import VERDICTS, Comparison, Round, Timing, thinned
from .energy import Energy
from .energy import measure as energy_per_image
from .judging import MIN_FLOOR, judge
from .limits import BYTES, Ceilings, Roofline, ceilings, roofline
from .memory import Peak
from .memory import peak as peak_memory
from .protocol import BUDGETS, budget, compare
from .selftest import SelfTest, self_test
from .timing import fewest_rounds

__all__ = ["BUDGETS", "BYTES", "MIN_FLOOR", "VERDICTS", "Candidate", "Ceilings", "ColdStart",
           "Comparison", "Energy", "Peak", "Roofline", "Round", "SelfTest", "Timing", "budget", "ceilings",
           "cold_start", "compare", "energy_per_image", "fewest_rounds", "graphed", "judge", "peak_memory", "roofline",
           "self_test", "thinned"]
