"""Figures of runs. A function takes plain data and returns a matplotlib Figure; `save` writes it as PNG and SVG."""

from maml_rl.figures.adaptation import adaptation_curve
from maml_rl.figures.learning import learning_curve
from maml_rl.figures.optimisation import optimisation
from maml_rl.figures.paths import navigation_paths
from maml_rl.figures.style import after, png, save
from maml_rl.figures.tasks import before_after, return_by_task

__all__ = [
    "adaptation_curve",
    "after",
    "before_after",
    "learning_curve",
    "navigation_paths",
    "optimisation",
    "png",
    "return_by_task",
    "save",
]
