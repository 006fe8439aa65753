"""Completion in bash, which takes words apart at colons: ``assets:pic`` is three words to it."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from click.shell_completion import BashComplete, CompletionItem, add_completion_class, split_arg_string

__all__ = ["register"]

SOURCE = """\
%(complete_func)s() {
    local line path response
    response=$(env COMP_LINE="$COMP_LINE" COMP_POINT="$COMP_POINT" COMP_WORDBREAKS="$COMP_WORDBREAKS" \
%(complete_var)s=bash_complete "$1")
    while IFS= read -r line; do
        case $line in
            plain,*)
                line=${line#*,}
                [[ $line == *[:/] ]] && compopt -o nospace
                COMPREPLY+=("$(printf %%q "$line")") ;;
            file,*|dir,*)
                while IFS= read -r path; do
                    [[ -d $path ]] && { path+=/; compopt -o nospace; }
                    COMPREPLY+=("$(printf %%q "$path")")
                done < <(compgen -f -- "${line#*,}") ;;
        esac
    done <<< "$response"
    return 0
}

%(complete_func)s_setup() {
    complete -o nosort -F %(complete_func)s %(prog_name)s
}

%(complete_func)s_setup;
"""


class Bash(BashComplete):
    """Reads the line as it stands, and answers with what is behind the last colon of the word."""

    source_template: ClassVar[str] = SOURCE
    _known = 0

    def get_completion_args(self) -> tuple[list[str], str]:
        """Split the line before the cursor as a shell does, and at nothing else."""
        line = os.environ["COMP_LINE"][: int(os.environ["COMP_POINT"])]
        words = split_arg_string(line)
        begins = line[-1:].isspace() and not line.endswith("\\ ")
        word = "" if begins or not words else words.pop()
        if ":" in os.environ.get("COMP_WORDBREAKS", ""):
            self._known = word.rfind(":") + 1
        return words[1:], word

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """Leave out what bash has already."""
        return f"{item.type},{str(item.value)[self._known :]}"


def register() -> None:
    """Let click use it."""
    add_completion_class(Bash)
