"""Training ends when it is good enough or its time is up, and says which; how soon it was is read from its metrics."""

from pathlib import Path

import few_shot
import pytest
from tiny import Command, tiny

from maml_rl import meta_train
from maml_rl.config.base import Stop
from maml_rl.results.record import Moment, moment, record_table
from maml_rl.runs import ending
from maml_rl.runs.ending import Ending
from maml_rl.runs.folder import read_metrics

EVALUATED = {"every": 1, "tasks": 2, "episodes": 2, "steps": 1}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_is_good_enough_by_the_mean_of_three_evaluations_of_every_run() -> None:
    end = Ending(tiny(evaluation=EVALUATED, stop={"at": 10.0}), 2)
    said = []
    for one, other in ((9.0, 30.0), (9.0, 30.0), (11.9, 30.0), (9.2, 30.0), (8.9, 30.0)):
        end.note([0, 1], [{"evaluation/0": 99.0, "evaluation/1": value} for value in (one, other)])
        end.note([0, 1], [{"return/1": 99.0}] * 2)  # not evaluated
        said.append(end.reason())
    assert said[:3] == ["", "", ""]
    assert said[3] == "stop.at = 10 is reached, by 10.03, 30"
    assert said[4] == "stop.at = 10 is reached, by 10, 30"
    assert not Ending(tiny(), 1).asked


def test_a_policy_that_is_told_the_task_is_judged_before_any_step() -> None:
    end = Ending(tiny(method="oracle", evaluation=EVALUATED, stop={"at": 10.0}), 1)
    for _ in range(3):
        end.note([0], [{"evaluation/0": 11.0}])
    assert end.reason() == "stop.at = 10 is reached, by 11"


def test_a_run_that_is_complete_keeps_none_from_ending() -> None:
    end = Ending(tiny(evaluation=EVALUATED, stop={"at": 10.0}), 2)
    for _ in range(3):
        end.note([1], [{"evaluation/1": 11.0}])
    assert end.reason() == "stop.at = 10 is reached, by 11"


def test_of_an_error_less_is_better_and_of_an_accuracy_more() -> None:
    chosen = {"log_every": 1, "evaluation": {"every": 1, "steps": 2}, "stop": Stop(at=0.5)}
    for name, values, enough in (("error", (0.9, 0.3, 0.2), 0.4), ("accuracy", (0.3, 0.6, 0.6), 0.6)):
        end = Ending(few_shot.tiny(**chosen), 1)
        for value in values:
            assert end.reason() == ""
            end.note([0], [{f"validation/{name}/0": 9.0, f"validation/{name}/2": value}])
        end.note([0], [{f"validation/{name}/2": enough}])
        assert end.reason().startswith("stop.at = 0.5 is reached, by 0.")


def test_a_run_ends_and_says_why(folder: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = tiny(iterations=9, evaluation=EVALUATED, stop={"at": -1000.0})
    run = meta_train(settings, folder / "run", quiet=True)
    assert len(read_metrics(run)) == 3
    meta_train(settings.model_copy(update={"stop": Stop()}), folder / "run", resume=True, quiet=True)
    assert len(read_metrics(run)) == 9
    monkeypatch.setattr(ending.time, "monotonic", iter(range(0, 10_000, 45)).__next__)
    flags = ["--iterations", "9", "--tasks", "2", "--episodes", "2", "--horizon", "4", "--stop.minutes", "2"]
    code, out, err = command("train", "navigation", *flags, "--out", "timed")
    assert (code, out.splitlines()[0]) == (0, "trained: timed")
    assert "ended: stop.minutes = 2 are over" in err
    assert 0 < len(read_metrics(folder / "timed")) < 9


@pytest.mark.parametrize("kind", [tiny, few_shot.tiny])
def test_what_is_never_evaluated_cannot_be_good_enough(kind: type) -> None:
    with pytest.raises(ValueError, match=r"stop\.at with evaluation\.every = 0: there is no evaluation in training"):
        kind(stop={"at": 1.0})


def row(evaluated: float | None, steps: int) -> dict[str, float]:
    parts = {"seconds/sampling": 1.0, "seconds/inner": 0.5, "seconds/outer": 0.25, "seconds/other": 99.0}
    return {"env_steps": steps} | parts | ({} if evaluated is None else {"evaluation/1": evaluated})


def test_the_moment_is_when_three_evaluations_have_the_score() -> None:
    rows = [row(value, 100 * (k + 1)) for k, value in enumerate((9.0, None, 9.0, 11.0, None, 10.5, 20.0))]
    assert moment(rows, 10.0, "evaluation/1") == Moment(600, 6 * 1.75)
    assert moment(rows, 9.0, "evaluation/1") == Moment(400, 4 * 1.75)
    assert moment(rows, 14.0, "evaluation/1") is None
    assert moment(rows, 1.0, "evaluation/2") is None


def test_the_table_has_a_row_for_each_run_and_their_mean(folder: Path) -> None:
    runs = [
        meta_train(tiny(iterations=4, seed=seed, evaluation=EVALUATED), folder / f"s{seed}", quiet=True)
        for seed in (1, 2)
    ]
    lines = record_table(runs, [-1000.0, 1000.0], 1).splitlines()
    assert len(lines) == 5
    metrics = read_metrics(runs[0])
    reached = moment(metrics, -1000.0, "evaluation/1")
    assert reached is not None
    assert lines[2].startswith(f"| 1 | {reached.env_steps / 1e6:.2f} M | {reached.seconds:.0f} | never |  |")
    last = sum(each["evaluation/1"] for each in metrics[-3:]) / 3
    assert f"| {last:.0f} | 1 | 20" in lines[2]
    assert float(lines[2].split(" | ")[-1].rstrip(" |")) >= 0  # the load
    assert lines[4].startswith("| mean | 0.00 M | ")
