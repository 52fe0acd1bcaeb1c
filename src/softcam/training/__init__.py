"""Training: recipes, the Lightning module, cached features of a frozen trunk, and runs that can be taken up again."""

from __future__ import annotations

from softcam.training.crew import is_first_process
from softcam.training.folds import FoldsRun, train_folds
from softcam.training.hardware import Hardware
from softcam.training.module import Learner
from softcam.training.parts import Stage
from softcam.training.recipe import Recipe, change_recipe, list_recipes, read_recipe
from softcam.training.run import TrainingRun, train

__all__ = [
    "FoldsRun",
    "Hardware",
    "Learner",
    "Recipe",
    "Stage",
    "TrainingRun",
    "change_recipe",
    "is_first_process",
    "list_recipes",
    "read_recipe",
    "train",
    "train_folds",
]
