"""What griffe, which reads the docstrings for mkdocstrings, does beside its own work."""

from typing import Any

import griffe


class Examples(griffe.Extension):
    """Our docstrings say "Example:", griffe knows "Examples:"; it would take the code of the other for a quotation."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")
