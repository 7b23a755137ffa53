"""Detection losses that are exact, near-linear and usable.

What people import most is here by its name, ``lossbox.alrp_loss``, ``lossbox.evaluate``, ``lossbox.load``, and is imported when it is first
asked for: ``import lossbox`` itself loads neither torch nor Lightning. Everything else is in the packages. ``lossbox.losses``,
``lossbox.boxes`` and ``lossbox.metrics`` work with the bare install; the others need ``pip install 'lossbox[train]'``.
"""

__version__ = "0.1.0"

_HOME = {
    "alrp_loss": "losses",
    "ap_loss": "losses",
    "ndcg_loss": "losses",
    "rank_sort_loss": "losses",
    "SelfBalance": "losses",
    "debug_checks": "losses",
    "CATALOG": "losses",
    "evaluate": "programs.evaluate",
    "predict": "programs.predict",
    "read_ground_truth": "metrics",
    "read_results": "metrics",
    "write_report": "programs.report",
    "load": "training.load",
}
"""The module of each name. Type checkers and editors read the imports below."""

TYPE_CHECKING = False  # typing's would be an import
if TYPE_CHECKING:
    from .losses import CATALOG as CATALOG
    from .losses import SelfBalance as SelfBalance
    from .losses import alrp_loss as alrp_loss
    from .losses import ap_loss as ap_loss
    from .losses import debug_checks as debug_checks
    from .losses import ndcg_loss as ndcg_loss
    from .losses import rank_sort_loss as rank_sort_loss
    from .metrics import read_ground_truth as read_ground_truth
    from .metrics import read_results as read_results
    from .programs.evaluate import evaluate as evaluate
    from .programs.predict import predict as predict
    from .programs.report import write_report as write_report
    from .training.load import load_trained

    load = load_trained


def __getattr__(name: str) -> object:
    if name not in _HOME:
        from .messages import near_name

        raise AttributeError(f"module 'lossbox' has no attribute {name!r}{near_name(name, _HOME)}")
    from importlib import import_module

    value: object = getattr(import_module(f"lossbox.{_HOME[name]}"), "load_trained" if name == "load" else name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
