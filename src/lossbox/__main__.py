"""The ``lossbox`` command. What a command needs is imported when it runs, so that ``lossbox --help`` answers at once."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import warnings
from collections.abc import Sequence

from . import __version__
from .messages import near_name

DEBUG_VARIABLE = "LOSSBOX_DEBUG"

SPINNING = {"GOMP_SPINCOUNT": "50000", "KMP_BLOCKTIME": "1"}
"""How long waiting threads spin: rounds for libgomp (torch on Linux), milliseconds for libomp (macOS) and Intel's."""


COMMANDS = {
    "demo": "see it work: draw digits, train aLRP on them, validate, and leave curves and images",
    "fit": "train a detector as a recipe says, on the digits or on a folder of your own images",
    "validate": "measure a trained detector: COCO AP, and optimal LRP with its components, per class and mean",
    "predict": "find objects in your images with a trained detector: boxes as JSON and drawn, no annotations needed",
    "calibrate": "fit a map that turns the scores of a trained detector into the IoU to expect, and say how wrong they were",
    "export": "write a trained detector as ONNX or torch.export file, which runs without lossbox",
    "evaluate": "measure detections of any program: two COCO files in, AP and optimal LRP out, with the score at which to cut each class",
    "report": "write one HTML page about a run, or several beside each other: curves, classes, confusion, worst images, recipe",
    "losses": "list the losses: family, hyper-parameters, range, paper; or explain and draw one",
    "compare": "train recipes with several seeds and write their accuracy, mean and spread; or re-run a study of the papers",
    "convert": "make COCO JSON of a folder in any layout that fit takes",
    "check": "look at a data set before training: bad records, broken images, classes, box sizes against anchors, a sheet of images",
    "digits": "write the embedded data set: handwritten digits on photographs, as images and COCO JSON",
}
"""Each is ``lossbox.programs.NAME.run``."""


def help_text() -> str:
    """What ``lossbox --help`` prints.

    Example:
        >>> help_text().splitlines()[0]
        'usage: lossbox COMMAND [options]'
    """
    lines = [
        "usage: lossbox COMMAND [options]",
        "",
        "Detection losses that are exact and near-linear, with a detector, a trainer and optimal LRP.",
        "",
    ]
    lines += [f"  {name:<10}{purpose}" for name, purpose in COMMANDS.items()]
    lines += [
        "",
        "  lossbox COMMAND --help    the options of a command",
        "  lossbox --version         the version",
        '  lossbox --completion      for your shell: eval "$(lossbox --completion)" in ~/.bashrc or ~/.zshrc',
        f"  --debug                   with any command: Lightning's notes, and a traceback of an error (or set {DEBUG_VARIABLE}=1)",
        "",
        "Exit codes: 0 done; 1 `check` found bad records; 2 something to change, said in a line; 130 interrupted.",
        "A traceback, with 1 too, is a mistake of ours: report it.",
        "",
        "Start with: lossbox demo",
    ]
    return "\n".join(lines)


def hush() -> None:
    """Keeps Lightning's notes and the warnings that ask nothing of the user off the screen; ``--debug`` shows them."""
    # The loggers below Lightning's own two: those it sets to INFO when it is imported.
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero", "lightning.fabric.utilities.seed"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        "isinstance.treespec, LeafSpec.. is deprecated",
        "does not have many workers",
        "The number of training batches .* is smaller than the logging interval",
        "Found .* module.s. in eval mode at the start of training",  # norms of a pretrained trunk are held on purpose
        "Found .* in eval mode at the start of training",  # norms that are held still
        "could not find the monitored key",
        "Checkpoint directory .* exists and is not empty",
        "Be aware that when using .ckpt_path.",
        "It is recommended to use .self.log\\(.val/",  # the metrics are those of all processes already
    ):
        warnings.filterwarnings("ignore", f".*{message}")


def spin_less() -> None:
    """Lets threads of torch that wait for each other sleep after about a millisecond, unless the environment says how they wait.

    Beside other programs on the same cores, waiting threads that go on spinning take the cores that the others of the team need: on a busy
    machine that costs a multiple (docs/machines.md). OpenMP reads the environment once, when torch is loaded.
    """
    if not os.environ.keys() & {"OMP_WAIT_POLICY", *SPINNING}:
        os.environ.update(SPINNING)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the words after ``lossbox``; those of the process by default.

    Returns:
        0; 2 where the user has to change something; 130 after Ctrl-C. A traceback, with which a process ends with 1, is a mistake of ours.

    Raises:
        SystemExit: with 1, where ``check`` found bad records.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = os.environ.get(DEBUG_VARIABLE, "") not in ("", "0") or "--debug" in words
    words = [word for word in words if word != "--debug"]
    if not words or words[0] in ("-h", "--help", "help"):
        print(help_text())
        return 0
    if words[0] in ("-V", "--version"):
        print(f"lossbox {__version__}")
        return 0
    if words[0] == "--completion":
        from .programs.completion import completion

        print(completion(COMMANDS))
        return 0
    spin_less()
    name, *rest = words
    if name not in COMMANDS:
        near = near_name(name, COMMANDS, otherwise=f"the commands: {', '.join(COMMANDS)}")
        print(f"lossbox: no command {name!r}{near}", file=sys.stderr)
        return 2
    if not debug:
        hush()
    try:
        importlib.import_module(f"lossbox.programs.{name}").run(rest)
    except (KeyboardInterrupt, SystemExit) as stopped:
        # Lightning turns Ctrl-C into an exit of its own.
        if debug or (not isinstance(stopped, KeyboardInterrupt) and not isinstance(stopped.__context__, KeyboardInterrupt)):
            raise
        hint = getattr(stopped, "hint", "") if name == "fit" else ""
        print(f"\nlossbox {name}: interrupted{'; ' if hint else ''}{hint}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader, as in `| head`, has seen enough; the interpreter must not complain when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError, ImportError) as error:
        if debug:
            raise
        extra = "eval" if name == "evaluate" else "train"
        hint = f"; this command needs pip install 'lossbox[{extra}]'" if isinstance(error, ModuleNotFoundError) else ""
        print(f"lossbox {name}: {error}{hint}\n(--debug shows where this was raised)", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
