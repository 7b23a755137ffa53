"""The trainer: the task, its optimizers, what happens beside it, the command line, and trained detectors out of their checkpoints.

Here is what a recipe names, and a trained detector in Python; everything else is in the modules. Needs the extra:
``pip install 'lossbox[train]'``.
"""

from .callbacks import EMAWeights
from .load import Prediction, Trained, load_trained
from .optimization import WarmupCosine, WarmupSteps
from .steps import StepLog
from .task import DetectionTask, FirstStage

__all__ = ["DetectionTask", "EMAWeights", "FirstStage", "Prediction", "StepLog", "Trained", "WarmupCosine", "WarmupSteps", "load_trained"]
