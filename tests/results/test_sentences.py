"""The sentences about a comparison, from returns whose means and intervals are known."""

from collections.abc import Sequence

import numpy as np
import pytest
from few_shot import tiny as tiny_few_shot
from tiny import evaluation_of, tiny

from maml_rl.results.comparison import comparisons
from maml_rl.results.runs import Run, grouped
from maml_rl.results.sentences import UNCHANGED, sentences, share_worse

TASKS = 8


def run(method: str, per_step: Sequence[Sequence[float] | float], seed: int = 1, **changes: object) -> Run:
    """A run whose tasks have these returns after each step: one number for all tasks, or one each."""
    returns = np.stack([np.broadcast_to(np.asarray(values, float), (TASKS,)) for values in per_step], 1)
    row = {"env_steps": 10.0, "seconds/sampling": 1.0, "seconds/inner": 1.0, "seconds/outer": 1.0}
    metrics = [] if method == "random" else [row]
    config = tiny(method=method, seed=seed, **changes)
    return Run(f"{method}-s{seed}", config, metrics, (evaluation_of(returns),), {})


def said(*runs: Run) -> list[str]:
    return sentences(comparisons(grouped(runs))[0])


def test_a_step_that_helps_everywhere() -> None:
    assert said(run("maml", [-8, -2, -1], 1), run("maml", [-8, -2, -1], 2)) == [
        "MAML: one gradient step on a held-out task raises the return from -8.00 (-8.00 to -8.00) to -2.00 (-2.00 to "
        "-2.00), mean over 8 tasks and 2 seeds.",
        f"MAML: 0 % of the tasks have a lower return after the step than before it{UNCHANGED}.",
        "MAML: its best return is after 2 steps, -1.00 (-1.00 to -1.00).",
        "With 2 seeds the part of the interval that comes from them is rough.",
    ]


def test_a_step_that_hurts() -> None:
    lines = said(run("maml", [50, 20]))
    assert lines[0].startswith("MAML: one gradient step on a held-out task lowers the return from 50.0 (50.0 to 50.0)")
    assert lines[0].endswith("mean over 8 tasks and one seed.")
    assert lines[1] == f"MAML: 100 % of the tasks have a lower return after the step than before it{UNCHANGED}."
    assert lines[2:] == ["With one seed the interval is over tasks alone: how much seeds differ is not shown."]


def test_a_step_that_helps_some_and_hurts_as_many() -> None:
    lines = said(run("maml", [0, [1, -1] * 4]))
    assert "changes the return by no more than chance might, from 0.00 (0.00 to 0.00) to 0.00 (" in lines[0]
    assert lines[1] == f"MAML: 50 % of the tasks have a lower return after the step than before it{UNCHANGED}."


def odds(share: str) -> str:
    return f"; better on a task with probability {share} ({share} to {share})."


def test_against_other_methods_and_the_oracle() -> None:
    others = [run("oracle", [0]), run("pretrained", [-8, -5]), run("random", [-9, -9])]
    lines = said(run("maml", [-8, -2]), *others)
    assert lines[2:] == [
        "After one step MAML is below the oracle by 2.00 (2.00 to 2.00)" + odds("0.00"),
        "After one step MAML is above pretrained by 3.00 (3.00 to 3.00)" + odds("1.00"),
        "After one step MAML is above random by 7.00 (7.00 to 7.00)" + odds("1.00"),
        "MAML closes 0.75 (0.75 to 0.75) of the way to the oracle in one step.",  # (8 - 2) / 8
        "With one seed the interval is over tasks alone: how much seeds differ is not shown.",
    ]


def test_the_oracle_counts_before_any_step() -> None:
    lines = said(run("maml", [-8, -2]), run("oracle", [0, -7]))
    assert "After one step MAML is below the oracle by 2.00 (2.00 to 2.00)" + odds("0.00") in lines


def test_a_difference_that_may_be_chance() -> None:
    lines = said(run("maml", [-8, -2]), run("pretrained", [-8, [-1, -3] * 4]))
    (against,) = [line for line in lines if "pretrained" in line]
    assert against.startswith("After one step MAML cannot be told from pretrained: difference 0.00 (-0.")
    assert "; better on a task with probability 0.50 (0." in against


def test_the_gap_of_a_paper_stands_beside_ours() -> None:
    same = {"preset": "finn2017", "horizon": 100}
    lines = said(run("maml", [-8, -2], **same), run("oracle", [0], **same))
    (gap,) = [line for line in lines if "closes" in line]
    assert gap == "MAML closes 0.75 (0.75 to 0.75) of the way to the oracle in one step; 0.75 in Finn et al. 2017."


def test_enough_seeds_need_no_warning() -> None:
    lines = said(*(run("maml", [-8, -2], seed) for seed in range(5)))
    assert not [line for line in lines if "With" in line]


def test_methods_that_do_not_adapt_have_no_verdict() -> None:
    assert said(run("oracle", [0])) == [
        "With one seed the interval is over tasks alone: how much seeds differ is not shown."
    ]
    assert said(run("random", [0, 0])) == []


def test_the_share_that_became_worse_counts_tasks_by_the_mean_of_their_seeds() -> None:
    returns = np.array([[[0.0, -1.0], [0.0, 1.0], [0.0, -3.0]], [[0.0, 1.0], [0.0, -4.0], [0.0, 1.0]]])
    assert share_worse(returns) == pytest.approx(2 / 3)  # as good as before is not worse


def few_shot(method: str, measure: str, per_step: Sequence[Sequence[float] | float]) -> Run:
    """A few-shot run whose tasks have this measure after each step."""
    values = np.stack([np.broadcast_to(np.asarray(each, float), (TASKS,)) for each in per_step], 1)
    found = evaluation_of(values, measure, shots=5)
    return Run(method, tiny_few_shot(method=method), [{"iteration": 0.0, "loss": 1.0}], (found,), {})


def test_a_lower_error_is_better() -> None:
    lines = said(few_shot("maml", "error", [4, [2, 5] * 4, 1]), few_shot("random", "error", [4, 4, 4]))
    assert lines[0].startswith("MAML: one gradient step on a held-out task ")
    assert "the mean squared error" in lines[0]
    assert lines[1] == "MAML: 50 % of the tasks have a higher mean squared error after the step than before it."
    assert lines[2] == "MAML: its best mean squared error is after 2 steps, 1.000 (1.000 to 1.000)."
    assert "After 2 steps MAML is below random by 3.000 (3.000 to 3.000)" + odds("1.00") in lines
    assert share_worse(np.array([[[0.0, 1.0], [1.0, 0.5]]]), higher_is_better=False) == 0.5


def test_a_higher_accuracy_is_better() -> None:
    assert said(few_shot("maml", "accuracy", [0.25, 0.75]))[:2] == [
        "MAML: one gradient step on a held-out task raises the accuracy from 25.00 % (25.00 % to 25.00 %) to 75.00 % "
        "(75.00 % to 75.00 %), mean over 8 tasks and one seed.",
        "MAML: 0 % of the tasks have a lower accuracy after the step than before it.",
    ]


def test_a_task_that_diverges_is_counted_and_nothing_is_said_of_a_mean_that_it_carries_away() -> None:
    lines = said(few_shot("maml", "error", [1, 0.5, [np.inf, *[0.25] * 7]]), few_shot("random", "error", [1, 1, 1]))
    assert "MAML: 12.50 % of the tasks diverge within 2 steps and carry the mean away." in lines
    assert not [line for line in lines if line.startswith(("After 2 steps", "MAML: its best"))]
