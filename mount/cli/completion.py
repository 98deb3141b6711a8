"""`bentofs completion`: the scripts with which bash, zsh and fish complete command lines.

A script passes the line up to the cursor in `COMP_LINE`, and gets one line for each completion: its type ("plain", or
"dir" and "file" for the shell's own completion), its value, and a description, separated by tabs. click's own scripts
do not fit: bash takes the colon of a tag for the end of a word, and fish cuts a value at its comma.
"""

from __future__ import annotations

import os
import re
from typing import Any, ClassVar

import click
from click.shell_completion import CompletionItem, ShellComplete, add_completion_class, split_arg_string

VARIABLE = "_BENTOFS_COMPLETE"  # click's name: set, it makes the program complete a line

_BASH = r"""# Completion of bentofs for bash 4.4 and newer.
%(complete_func)s() {
    local kind value program=${1/#\~\//$HOME/}
    COMPREPLY=()
    while IFS=$'\t' read -r kind value _; do
        case $kind in
            plain) COMPREPLY+=("$value") ;;
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
        esac
    done < <(COMP_LINE=${COMP_LINE:0:COMP_POINT} COMP_WORDBREAKS=$COMP_WORDBREAKS \
        %(complete_var)s=bash_complete "$program" 2>/dev/null)
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""

_ZSH = r"""#compdef %(prog_name)s
# Completion of bentofs for zsh. Load it after compinit, or keep it as _%(prog_name)s in a directory of $fpath.
%(complete_func)s() {
    local entry line="${(j: :)words[1,CURRENT-1]} $PREFIX"
    local -a parts plain described
    for entry in "${(@f)$(COMP_LINE=$line %(complete_var)s=zsh_complete ${~words[1]} 2>/dev/null)}"; do
        parts=("${(@ps:\t:)entry}")
        case $parts[1] in
            plain)
                if [[ -n $parts[3] ]]; then
                    described+=("${parts[2]//:/\\:}:$parts[3]")
                else
                    plain+=("$parts[2]")
                fi
                ;;
            dir) [[ $PREFIX == --*=* ]] && compset -P '*='; _path_files -/ ;;
            file) [[ $PREFIX == --*=* ]] && compset -P '*='; _path_files ;;
        esac
    done
    (( $#described )) && _describe -V %(prog_name)s described
    (( $#plain )) && compadd -V %(prog_name)s -a plain
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    %(complete_func)s "$@"
else
    compdef %(complete_func)s %(prog_name)s
fi
"""

_FISH = r"""# Completion of bentofs for fish 3.1 and newer.
function %(complete_func)s
    set -l program (string replace -r '^~/' "$HOME/" -- (commandline -opc)[1])
    set -l token (commandline -ct)
    set -l before (string match -r -- '^--[^=]*=' $token)
    set -l path (string replace -- "$before" '' $token)
    for line in (env COMP_LINE=(commandline -cp | string collect) %(complete_var)s=fish_complete $program 2>/dev/null)
        set -l parts (string split -m 2 \t -- $line)
        switch $parts[1]
            case plain
                printf '%%s\t%%s\n' $parts[2] "$parts[3]"
            case dir
                string replace -r -- '^' "$before" (__fish_complete_directories $path '')
            case file
                string replace -r -- '^' "$before" (__fish_complete_path $path '')
        end
    end
end
complete --command %(prog_name)s --no-files --arguments '(%(complete_func)s)'
"""


class _Complete(ShellComplete):
    """Completion in a shell."""

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the incomplete one, and that one."""
        # The last word is incomplete, even if it is empty or in open quotes: mark its end.
        words = split_arg_string(os.environ["COMP_LINE"] + "\0")
        return words[1:-1], words[-1].removesuffix("\0")

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
        """Return the completions of a whole word. click leaves out `--option=` before a value."""
        before = re.match(r"--[^=]*=", incomplete)
        found = super().get_completions(args, incomplete)
        for item in found:
            if before is not None and item.type == "plain" and not item.value.startswith(before[0]):
                item.value = before[0] + item.value
        return found

    def format_completion(self, item: CompletionItem[str]) -> str:
        return "\t".join((item.type, item.value, " ".join((item.help or "").split())))


@add_completion_class
class _BashComplete(_Complete):
    name: ClassVar[str] = "bash"
    source_template: ClassVar[str] = _BASH

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
        """Return completions for bash, which replaces only the part of a word behind a colon or an equals sign."""
        found = super().get_completions(args, incomplete)
        is_quoted = re.search(r"(^|\s)['\"]\S*$", os.environ["COMP_LINE"]) is not None
        breaks = "" if is_quoted else os.environ.get("COMP_WORDBREAKS", "")
        kept = max((incomplete.rfind(char) + 1 for char in ":=" if char in breaks), default=0)
        for item in found:
            if item.type == "plain" and item.value.startswith(incomplete[:kept]):
                item.value = item.value[kept:]
        return found


@add_completion_class
class _ZshComplete(_Complete):
    name: ClassVar[str] = "zsh"
    source_template: ClassVar[str] = _ZSH


@add_completion_class
class _FishComplete(_Complete):
    name: ClassVar[str] = "fish"
    source_template: ClassVar[str] = _FISH


_SHELLS: dict[str, type[_Complete]] = {kind.name: kind for kind in (_BashComplete, _ZshComplete, _FishComplete)}


@click.command(name="completion")
@click.argument("shell", type=click.Choice(list(_SHELLS)))
@click.pass_context
def completion_command(context: click.Context, shell: str) -> None:
    """Print the script with which SHELL completes commands, options, tags and mountpoints.

    \b
    bash: bentofs completion bash > ~/.local/share/bash-completion/completions/bentofs
    zsh:  bentofs completion zsh > DIR/_bentofs, where DIR is in $fpath
    fish: bentofs completion fish > ~/.config/fish/completions/bentofs.fish
    """
    root = context.find_root()
    arguments: dict[str, Any] = {}
    click.echo(_SHELLS[shell](root.command, arguments, "bentofs", VARIABLE).source(), nl=False)
