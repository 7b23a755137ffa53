"""Detectors: images in, raw predictions out. They see no targets, compute no loss, and do the same in training and in evaluation."""

from .anchors import cell_centers, pyramid_anchors
from .backbone import Backbone
from .center_point import CenterPoint
from .dense_head import CenternessHead, DenseHead
from .faster_rcnn import FasterRCNN
from .fcos import FCOS
from .foveabox import FoveaBox
from .proposals import add_true_boxes, choose_proposals, crop_regions
from .pyramid import Pyramid
from .retinanet import RetinaNet

__all__ = [
    "FCOS",
    "Backbone",
    "CenterPoint",
    "CenternessHead",
    "DenseHead",
    "FasterRCNN",
    "FoveaBox",
    "Pyramid",
    "RetinaNet",
    "add_true_boxes",
    "cell_centers",
    "choose_proposals",
    "crop_regions",
    "pyramid_anchors",
]
