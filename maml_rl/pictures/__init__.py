"""Figures of runs. A function takes plain data and returns a matplotlib Figure; `save` writes it as PNG and SVG."""

from maml_rl.pictures.adaptation import adaptation_curve
from maml_rl.pictures.learning import learning_curve
from maml_rl.pictures.optimisation import optimisation
from maml_rl.pictures.paths import navigation_paths
from maml_rl.pictures.style import after, png, save
from maml_rl.pictures.tasks import before_after, return_by_task

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
