"""benchmarks/energy.py, with a card that is made up."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from seenn_jax.errors import UserError

ROOT = Path(__file__).parent.parent
with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(ROOT / "benchmarks")
    import energy as measuring


class NotSupported(Exception):
    pass


def made_up(clock, watts, counts=True):
    """NVML of a card that takes so many watts of the clock's time."""

    def counter(handle):
        if not counts:
            raise NotSupported
        return 1e3 * watts * clock()

    return SimpleNamespace(
        NVMLError_NotSupported=NotSupported,
        nvmlDeviceGetHandleByIndex=lambda index: ("index", index),
        nvmlDeviceGetHandleByUUID=lambda uuid: ("uuid", uuid),
        nvmlDeviceGetTotalEnergyConsumption=counter,
        nvmlDeviceGetPowerUsage=lambda handle: 1e3 * watts,
    )


class Clock:
    """A clock that work moves on."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now

    def work(self, seconds, images=0):
        self.now += seconds
        return images


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    fake = SimpleNamespace(perf_counter=clock, sleep=clock.work)
    monkeypatch.setattr(measuring, "time", fake)
    return clock


def test_the_counter_of_the_card_counts_millijoules(clock):
    meter = measuring.Meter(made_up(clock, 250.0), "3")
    assert meter.handle == ("index", 3)
    found, spent = meter.measure(lambda: clock.work(4, images=7))
    assert (found, spent) == (7, (1000.0, 4.0))
    assert spent.watts == 250
    assert measuring.Meter(made_up(clock, 1.0), "GPU-5e").handle == ("uuid", "GPU-5e")


def test_power_is_sampled_where_there_is_no_counter(clock):
    meter = measuring.Meter(made_up(clock, 80.0, counts=False), "0")
    assert not meter.counts
    _, spent = meter.measure(lambda: clock.work(2.5))
    assert spent == (pytest.approx(200.0), 2.5)


def test_samples_are_integrated_by_trapezoids():
    assert measuring.integral([(0, 100), (1, 200), (3, 100)]) == 150 + 300
    assert measuring.integral([(0, 100)]) == 0


def test_ways_are_run_by_turns_until_their_time_is_over(clock):
    order = []

    def way(name, seconds, images):
        def call():
            order.append(name)
            return clock.work(seconds, images)

        return call

    meter = measuring.Meter(made_up(clock, 100.0), "0")
    ways = {"all T": way("a", 4.0, 10), "slots": way("b", 5.0, 30)}
    found = measuring.by_turns(meter, ways, seconds=10, repeats=2)
    assert "".join(order) == "aaabbaaabb"
    assert found == {"all T": [(30, (1200, 12))] * 2, "slots": [(60, (1000, 10))] * 2}


def test_a_row_has_the_spread_and_what_was_counted():
    spent = [(10, measuring.Spent(20.0, 2.0)), (10, measuring.Spent(30.0, 2.0))]
    counted = {"counted_arithmetic": 5e9, "counted_moving": 2e10}
    row = measuring.row_of("slots", spent, idle=4.0, counted=counted)
    assert row == {
        "method": "slots",
        "joules_per_image": 2.5,
        "least": 2.0,
        "most": 3.0,
        "watts": 12.5,
        "idle_watts": 4.0,
        "images_per_second": 5.0,
        "counted_arithmetic": 0.005,
        "counted_moving": 0.02,
    }
    assert "2.5 J/image (2 to 3) at 12.5 W, idle 4.0 W; 5 images/s" in measuring.words(row)


def test_what_was_counted_is_of_the_exit_and_of_all_t():
    account = {"at_exit": {"picojoules": 1}, "by_timestep": [{"picojoules": 2}, {"picojoules": 3}]}
    moved = {"at_exit": {"picojoules": 4}, "by_timestep": [{"picojoules": 5}, {"picojoules": 6}]}
    assert measuring.counted({"energy": account | {"memory": moved}}) == {
        "all T": {"counted_arithmetic": 3, "counted_moving": 6},
        "slots": {"counted_arithmetic": 1, "counted_moving": 4},
    }


@pytest.mark.slow
def test_a_run_is_measured_from_beginning_to_end(trained, monkeypatch, capsys):
    monkeypatch.setattr(measuring.jax, "default_backend", lambda: "gpu")
    meter = measuring.Meter(made_up(measuring.time.perf_counter, 100.0), "0")
    asked = {"threshold": 0.4, "slots": 64, "seconds": 0.2, "repeats": 2, "precision": None}
    asked |= {"workdir": str(trained), "weights": None}
    figures, _ = measuring.measured(meter, SimpleNamespace(**asked))
    one, other = figures["rows"]
    assert (one["method"], other["method"], figures["threshold"]) == ("all T", "slots", 0.4)
    for row in (one, other):
        assert row["watts"] == pytest.approx(100, rel=0.1)
        assert row["idle_watts"] == pytest.approx(100, rel=0.1)
        assert 0 < row["least"] <= row["joules_per_image"] <= row["most"]
    assert one["counted_moving"] > other["counted_moving"] > other["counted_arithmetic"] > 0
    assert capsys.readouterr().out.count("J/image") == 4


def test_jax_without_a_card_is_a_sentence(clock):
    meter = measuring.Meter(made_up(clock, 1.0), "0")
    with pytest.raises(UserError, match="JAX computes on 1 x cpu, and one NVIDIA card"):
        measuring.measured(meter, SimpleNamespace())


def test_without_a_card_it_is_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with (
        pytest.raises(UserError, match="nvidia-ml-py, which is not installed: pip install"),
        measuring.nvml_of_the_driver(),
    ):
        pass

    def fail():
        raise RuntimeError("NVML Shared Library Not Found")

    library = SimpleNamespace(NVMLError=RuntimeError, nvmlInit=fail)
    monkeypatch.setitem(sys.modules, "pynvml", library)
    with (
        pytest.raises(UserError, match=r"needs an NVIDIA card and its driver \(NVML Shared Lib"),
        measuring.nvml_of_the_driver(),
    ):
        pass
