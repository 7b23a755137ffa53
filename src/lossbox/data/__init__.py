"""The embedded digits, the images of any COCO-format data set, transforms and the Lightning data module.

Nothing is imported here: ``lossbox.data.images`` needs Pillow, ``lossbox.data.digits`` scikit-learn, ``lossbox.data.module`` Lightning,
all of them in ``pip install 'lossbox[train]'``.
"""
