"""Detectors: pictures in, raw predictions out; no targets, no losses, no training mode."""

from .anchors import cell_centers, pyramid_anchors
from .backbone import Pyramid, resnet_pyramid
from .dense_head import DenseHead
from .faster_rcnn import FasterRCNN
from .proposals import add_true_boxes, choose_proposals, crop_regions
from .retinanet import RetinaNet

__all__ = [
    "DenseHead",
    "FasterRCNN",
    "Pyramid",
    "RetinaNet",
    "add_true_boxes",
    "cell_centers",
    "choose_proposals",
    "crop_regions",
    "pyramid_anchors",
    "resnet_pyramid",
]
