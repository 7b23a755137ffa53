"""``lossbox --completion``: what a shell needs to complete commands, options, recipes and files."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from contextlib import redirect_stdout, suppress
from importlib import import_module

from .recipes import shipped_recipes

SCRIPT = """_lossbox() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD - 1]}}" words=""
    if [ "$COMP_CWORD" -eq 1 ]; then
        words="{commands}"
    elif [ "$before" = "--config" ] || [ "$before" = "-c" ] || [ "${{COMP_WORDS[1]}}" = "compare" ] && [ "${{word#-}}" = "$word" ]; then
        words="{recipes}"
    elif [ "${{word#-}}" != "$word" ]; then
        case "${{COMP_WORDS[1]}}" in
{cases}
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
[ -n "$ZSH_VERSION" ] && autoload -Uz compinit bashcompinit && compinit && bashcompinit
complete -o default -F _lossbox lossbox
"""


def completion(commands: Iterable[str]) -> str:
    """A script for bash, and for zsh by its bashcompinit. Where no word of lossbox fits, names of files are completed.

    Args:
        commands: by name.

    Example:
        >>> "digits) words=" in completion(["digits"])
        True
    """
    cases = [f'            {name}) words="{" ".join(_options(name))}" ;;' for name in commands]
    recipes = " ".join(sorted(path.stem for path in shipped_recipes()))
    return SCRIPT.format(commands=" ".join(commands), recipes=recipes, cases="\n".join(cases))


def _options(name: str) -> list[str]:
    """Those that ``--help`` names."""
    page = io.StringIO()
    with redirect_stdout(page), suppress(SystemExit):
        import_module(f"lossbox.programs.{name}").run(["--help"])
    return sorted(set(re.findall(r"(?<!\S)--[a-z][\w.-]*\w", page.getvalue())) | {"--help", "--debug"})
