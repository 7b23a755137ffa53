"""The losses inside the training code of other packages: a module for each, with one function ``use``.

No package is imported before its ``use`` is called, and nothing of ours gets into its checkpoints.
"""
