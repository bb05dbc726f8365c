"""Refuse a meta-gradient that is not finite, and say whose."""

from collections.abc import Callable

import torch

from maml_rl.types import Params, Runs, TaskRows


def check_gradient(
    total: Params, of_task: Callable[[int], Params], tasks: int, rows: TaskRows, runs: Runs = ()
) -> None:
    """Refuse a meta-gradient (*runs, ...) that is not finite, and find the first run and task that make it so.

    Args:
        total: The mean over tasks.
        of_task: That of one, by its row.
        tasks: Of each run.
        rows: Which tasks the rows are.
        runs: The axes of runs.

    Raises:
        FloatingPointError: It is not finite.
    """

    def bad(gradient: Params, runs: Runs = ()) -> list[list[str]]:
        """Of each run, the names of what is not finite."""
        finite = torch.stack([value.reshape(*runs, -1).isfinite().all(-1) for value in gradient.values()], -1)
        return [
            [name for name, fine in zip(gradient, each, strict=True) if not fine]
            for each in finite.reshape(-1, len(gradient)).tolist()
        ]

    for run, names in enumerate(bad(total, runs)):
        if names:
            own = range(run * tasks, run * tasks + tasks)
            together = f"all tasks together{rows.of_run(run)}"
            alone = next((rows.called(row) for row in own if any(bad(of_task(row)))), together)
            raise FloatingPointError(f"the meta-gradient of {alone} is NaN or infinite in {', '.join(names)}")
