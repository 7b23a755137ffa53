"""The studies of the papers, each as a function that returns its numbers; ``lossbox compare STUDY`` prints and draws them."""

from .toy import TOY_DETECTORS, TOY_IOUS, toy_study

__all__ = ["TOY_DETECTORS", "TOY_IOUS", "toy_study"]
