"""The number of cores: physical ones, of those that the process may use, and no more than a container's quota."""

import os
from pathlib import Path

import pytest

from maml_envs import cores


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 4 cores with 2 hyperthreads each: 0 and 4 are one core, and so on."""
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(cores, "SIBLINGS", str(tmp_path / "cpu{}"))
    monkeypatch.setattr(cores, "QUOTA", str(tmp_path / "cpu.max"))
    for number in range(8):
        (tmp_path / f"cpu{number}").write_text(f"{number % 4},{number % 4 + 4}\n")
    return tmp_path


@pytest.mark.parametrize(
    ("allowed", "count"), [(set(range(8)), 4), ({0, 4}, 1), ({0, 1, 2}, 3), ({1, 5, 2}, 2), ({7}, 1)]
)
@pytest.mark.usefixtures("machine")
def test_hyperthreads_of_a_core_are_one(allowed: set[int], count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: allowed, raising=False)
    assert cores.cores() == count


@pytest.mark.parametrize(
    ("quota", "count"),
    [("max 100000", 4), ("200000 100000", 2), ("150000 100000", 2), ("50000 100000", 1), ("900000 100000", 4)],
)
def test_a_container_has_its_quota(quota: str, count: int, machine: Path) -> None:
    (machine / "cpu.max").write_text(f"{quota}\n")
    assert cores.cores() == count


def test_where_nothing_tells_every_cpu_is_a_core(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in machine.iterdir():
        file.unlink()
    assert cores.cores() == 8
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert cores.cores() == 6
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert cores.cores() == 1
