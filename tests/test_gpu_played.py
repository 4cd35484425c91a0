"""The paths that need a GPU, with NVML and torch.cuda played: these tests have not met a GPU.

They show which calls are made, in which order, and what becomes of the answers; not that a real driver answers so.
"""

import contextlib
import os
import sys
import types

import pytest
import torch
from torch import nn

from medbench import latency, machine, results
from medbench.latency import candidates, energy, memory, protocol, timing

SIZE = (3, 5, 7)


class Gpu:
    """A GPU on which time passes when a module runs: counters, clocks, and a diary of what was asked."""

    def __init__(self):
        self.now, self.joule, self.done, self.hidden, self.energy = 10.0, 500.0, [], False, True
        self.work_seconds, self.work_watt, self.idle_watt = 0.01, 300.0, 60.0

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self.now, self.joule = self.now + seconds, self.joule + self.idle_watt * seconds

    def work(self, x):
        self.now, self.joule = self.now + self.work_seconds, self.joule + self.work_watt * self.work_seconds
        return x


class Event:
    """A CUDA event: what it records is the GPU's time."""

    def __init__(self, gpu):
        self.gpu = gpu

    def record(self):
        self.at = self.gpu.now

    def elapsed_time(self, other):
        return 1000 * (other.at - self.at)


@pytest.fixture
def gpu(monkeypatch):
    """A played GPU under torch.cuda and pynvml; tensors stay where they are."""
    gpu, to = Gpu(), torch.Tensor.to

    def stay(tensor, *args, **options):
        moved = [a for a in args if not isinstance(a, (torch.device, str))]
        return to(tensor, *moved) if moved and not isinstance(moved[0], type(None)) else tensor
    facts = types.SimpleNamespace(name="Played GPU", total_memory=2**34, major=9, minor=0, multi_processor_count=4,
                                  uuid="0000")
    noted = {name: (lambda *_, name=name: gpu.done.append(name)) for name in ("synchronize", "empty_cache",
                                                                             "reset_peak_memory_stats")}
    played = noted | {"is_available": lambda: True, "device_count": lambda: 1,
                      "get_device_properties": lambda _: facts, "Event": lambda enable_timing: Event(gpu),
                      "device": lambda _: contextlib.nullcontext(),
                      "max_memory_allocated": lambda _: 1000, "max_memory_reserved": lambda _: 4096}
    for name, fake in played.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    monkeypatch.setattr(torch.Tensor, "to", stay)
    monkeypatch.setitem(sys.modules, "pynvml", nvml(gpu))
    return gpu


def nvml(gpu):
    """A pynvml that knows this GPU."""
    module = types.ModuleType("pynvml")

    class NVMLError(Exception):
        pass

    def counter(_):
        if not gpu.energy:
            raise NVMLError("Not Supported")
        return 1000 * gpu.joule
    own = types.SimpleNamespace(pid=os.getpid(), usedGpuMemory=777_000)
    module.NVMLError = NVMLError
    module.nvmlInit = lambda: None
    module.nvmlDeviceGetHandleByUUID = lambda uuid: uuid
    module.nvmlDeviceGetTotalEnergyConsumption = counter
    module.nvmlDeviceGetComputeRunningProcesses = lambda _: [] if gpu.hidden else [own]
    return module


# --------------------------------------------------------------------------------------------- the timer
def test_events_and_the_outer_clock_are_both_read_around_every_call_but_the_first(gpu):
    calls, waits = [], len(gpu.done)

    def run(x):
        calls.append(gpu.now)
        gpu.now += 0.004 * len(calls)

    def clock():
        gpu.now += 0.001                                     # what the launch and the wait cost beside the work
        return gpu.now
    found = timing.CudaTimer(clock).series(run, torch.zeros(SIZE), 2)
    assert found == [(pytest.approx(0.008), pytest.approx(0.009)), (pytest.approx(0.012), pytest.approx(0.013))]
    assert len(calls) == 3 and len(gpu.done) - waits == 6    # every reading of the clock waits first
    assert isinstance(timing.timer_for(torch.device("cuda"), clock), timing.CudaTimer)


@pytest.mark.parametrize("ratio, seconds, told", [(0.95, 0.01, False), (1.0, 0.01, False), (0.5, 0.01, True),
                                                  (1.3, 0.01, True), (0.3, 5e-5, False), (None, 0.01, False)])
def test_events_that_disagree_with_the_clock_are_told(ratio, seconds, told):
    note = timing.events_note(ratio, seconds)
    assert (note is not None) == told and (not told or f"{ratio:.2f} times what the outer clock says" in note)


def test_a_timing_keeps_its_median_and_the_note(monkeypatch):
    class Half(timing.CpuTimer):
        def series(self, run, x, calls):
            return [(outer / 2, outer) for outer, _ in super().series(run, x, calls)]

    class Wait(nn.Linear):
        def forward(self, x):
            now[0] += 0.05
            return super().forward(x)
    now = [0.0]
    monkeypatch.setattr(protocol, "timer_for", lambda place, clock: Half(clock))
    found = latency.compare({"a": Wait(7, 4)}, SIZE, rounds=5, seconds=1e3, clock=lambda: now[0],
                            load=timing.Load, device="cpu")
    assert found["a"].median == pytest.approx(0.025) and found["a"].events_over_clock == pytest.approx(0.5)
    assert "the GPU's events say 0.50 times" in found["a"].note
    assert found["a"].rows()[0]["context"]["note"] == found["a"].note


# --------------------------------------------------------------------------------------------- CUDA graphs
def test_a_graph_copies_in_and_replays(gpu, monkeypatch):
    diary, module, captured = [], nn.Linear(7, 4), []

    class Stream:
        def wait_stream(self, other):
            diary.append("wait")

    class Graph:
        def replay(self):
            diary.append("replay")
            captured[0]()

    @contextlib.contextmanager
    def block(name):
        diary.append(name)
        yield

    class Spy(nn.Linear):
        def forward(self, x):
            diary.append("call")
            out = super().forward(x)
            captured[:] = [lambda: out.copy_(super(Spy, self).forward(x))]
            return out
    spy = Spy(7, 4)
    spy.load_state_dict(module.state_dict())
    fakes = {"Stream": Stream, "current_stream": Stream, "CUDAGraph": Graph, "device": lambda _: block("device"),
             "stream": lambda _: block("aside"), "graph": lambda _: block("capture")}
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    example, x = torch.zeros(SIZE), torch.randn(SIZE)
    found = candidates.graphed(spy, example)
    assert diary == ["device", "wait", "aside", *["call"] * candidates.WARM_UP_CALLS, "wait", "capture", "call"]
    with torch.inference_mode():
        assert torch.allclose(found.run(x), module(x)) and torch.equal(example, torch.zeros(SIZE))
        assert diary[-1] == "replay"
        assert torch.allclose(found.exact(x.double()).float(), module(x), atol=1e-6)
    assert (found.runtime, found.dtype) == ("cudagraph", "float32")
    assert found.module is not spy and spy.training
    with pytest.raises(ValueError, match=r"captured for \(3, 5, 7\) but received \(1, 5, 7\)"):
        found.run(x[:1])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_graph_needs_a_gpu():
    with pytest.raises(RuntimeError, match="torch sees 0 CUDA GPUs"):
        latency.graphed(nn.Linear(7, 4), torch.zeros(SIZE))
    with pytest.raises(RuntimeError, match="device is 'cpu', which is no GPU; a CUDA graph needs one"):
        latency.graphed(nn.Linear(7, 4), torch.zeros(SIZE), "cpu")


# --------------------------------------------------------------------------------------------- memory
def test_three_memories_of_a_gpu(gpu, tmp_path):
    found = memory.peak(nn.Linear(7, 4), SIZE, device="cuda")
    assert (found.allocated, found.reserved, found.process, found.reasons) == (1000, 4096, 777_000, {})
    assert gpu.done.index("reset_peak_memory_stats") > gpu.done.index("empty_cache") and gpu.done[-1] == "synchronize"
    gpu.hidden = True
    hidden = memory.peak(nn.Linear(7, 4), SIZE, device="cuda")
    made = results.record("memory.softmax", hidden, to=tmp_path / "gpu" / "12_latency.json")
    row = {r.quantity: r for r in made}["peak_process"]
    assert row.value is None and "NVML does not tell this process's memory" in row.reason


# --------------------------------------------------------------------------------------------- energy
def test_idle_power_is_subtracted(gpu, tmp_path):
    found = energy.measure(gpu.work, torch.zeros(4, 7), 6.0, device="cuda", clock=gpu.clock, sleep=gpu.sleep)
    assert found.joule == pytest.approx((300 - 60) * 0.01 / 4) and found.idle_power == pytest.approx(60)
    assert found.power == pytest.approx(300) and len(found.samples) == 3 and found.images == pytest.approx(7200, abs=12)
    [row] = results.record("energy.softmax", found, to=tmp_path / "gpu" / "12_latency.json")
    assert (row.name, row.unit, row.n, row.reason) == ("energy.softmax.energy.b4", "J", found.images, None)


def test_energy_is_null_with_a_reason_and_never_zero(gpu, tmp_path):
    gpu.work_watt = 60.0                                     # work that costs no more than idling
    found = energy.measure(gpu.work, torch.zeros(4, 7), 3.0, device="cuda", clock=gpu.clock, sleep=gpu.sleep)
    assert found.joule is None and "idle 60.0 W; measure for longer" in found.reason
    gpu.energy = False
    found = energy.measure(gpu.work, torch.zeros(4, 7), 3.0, device="cuda", clock=gpu.clock, sleep=gpu.sleep)
    assert found.joule is None and found.reason == "no energy counter: NVML: Not Supported"
    [row] = results.record("energy.softmax", found, to=tmp_path / "gpu" / "12_latency.json")
    assert row.value is None and row.reason == found.reason


def test_without_a_gpu_there_is_no_energy():
    found = energy.measure(nn.Linear(7, 4), torch.zeros(SIZE), device="cpu")
    assert found.joule is None and found.reason.startswith("no energy counter: ")
    assert machine.process_memory("cpu")["byte"] is None
    with pytest.raises(ValueError, match="windows is 0"):
        energy.measure(nn.Linear(7, 4), torch.zeros(SIZE), windows=0, device="cpu")
