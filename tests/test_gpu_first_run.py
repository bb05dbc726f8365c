"""benchmarks/gpu_first_run.py runs on mujoco_warp's CPU device, in small, and says what fails without stopping."""

import json
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("mujoco_warp")
BENCHMARKS = str(Path(__file__).parents[1] / "benchmarks")
SMALL = "--device cpu --tasks 2 --episodes 2 --horizon 12 --hidden 4 --worlds 4 --seeds 1 2 --repeats 1 --iterations 2"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setattr(sys, "path", [BENCHMARKS, *sys.path])
    threads = torch.get_num_threads()
    import gpu_first_run

    yield gpu_first_run
    torch.set_num_threads(threads)


def test_it_finds_everything_in_one_go(
    script: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu_first_run.py", *SMALL.split()])
    script.main()  # type: ignore[attr-defined]
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(found) == ["machine", "no_wait", "recorded", "parity", "rates", "iterations", "life"]
    errors = [name for name, part in found.items() if "error" in json.dumps(part)]
    assert not errors, found
    assert found["recorded"]["largest_difference"] == 0.0  # a CPU records nothing
    assert max(found["parity"]["qpos_qvel_after_1"]) < 1e-3
    assert found["rates"]["4"]["closed_loop_steps_per_second"] > 0
    assert found["iterations"]["2"]["env_steps"] == 2 * found["iterations"]["1"]["env_steps"]
    for name in ("resume", "evaluate", "evaluate_on_the_cpu", "render"):
        assert found["life"][name]["code"] == 0


def test_a_part_that_fails_stops_nothing(
    script: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(chosen: object) -> dict[str, object]:
        raise RuntimeError("no such driver")

    def works(chosen: object) -> dict[str, object]:
        return {"fine": True}

    monkeypatch.setattr(script, "PARTS", (fails, works))
    monkeypatch.setattr(sys, "argv", ["gpu_first_run.py", "--device", "cpu"])
    script.main()  # type: ignore[attr-defined]
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["fails"]["error"] == "RuntimeError: no such driver"
    assert "in fails" in found["fails"]["traceback"]
    assert found["works"]["fine"] is True
