"""The nn.Module of each loss function, so that a recipe can name it: options in the constructor, tensors in the call.

The options are the function's own with the same defaults. ``weight`` and ``normalizer`` belong to a batch and are given in the call; so
does ``global_batch``, which a training step may ask for and a validation that one process runs alone may not.
"""
