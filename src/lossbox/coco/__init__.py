"""COCO JSON, read and checked once for training and evaluation, and other layouts converted to it.

Nothing is imported here. ``lossbox.coco.columns`` and ``lossbox.coco.read`` run on the bare install; ``lossbox.coco.convert`` opens images
with Pillow.
"""
