"""Detectors: images in, raw predictions out; no targets, no losses, no training mode."""

from .anchors import cell_centers, pyramid_anchors
from .backbone import Pyramid, build_pyramid
from .dense_head import CenternessHead, DenseHead
from .faster_rcnn import FasterRCNN
from .fcos import FCOS
from .foveabox import FoveaBox
from .proposals import add_true_boxes, choose_proposals, crop_regions
from .retinanet import RetinaNet

__all__ = [
    "FCOS",
    "CenternessHead",
    "DenseHead",
    "FasterRCNN",
    "FoveaBox",
    "Pyramid",
    "RetinaNet",
    "add_true_boxes",
    "build_pyramid",
    "cell_centers",
    "choose_proposals",
    "crop_regions",
    "pyramid_anchors",
]
