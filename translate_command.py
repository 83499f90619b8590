"""Commands of the systems that this project re-implements -> ours.

    python translate_command.py -- python train.py --dump_path runs/first --data_file data/corpus.pickle --token_counts data/counts.pickle
    python translate_command.py < old_commands.sh > new_commands.sh

Standard output can be pasted into a shell; what is to be known about it is on standard error, a line each behind a #. Flags and what became
of them, of every script: docs/migrating.md. Exit status 2: a script or a flag is not known, and nothing was printed.
"""

import shlex
import sys

from dataset.errors import UserError, run_command
from translation.translate import translate


def main(arguments: list[str] | None = None) -> None:
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words in (["-h"], ["--help"]):
        print(__doc__.strip())
        return
    if words[:1] == ["--"]:
        words = words[1:]
    elif words and words[0].startswith("-"):
        raise UserError(f"{words[0]}: no flag of this command; translate_command.py -- OLD COMMAND")
    if not words and sys.stdin.isatty():
        raise UserError("no command; translate_command.py -- OLD COMMAND, or the commands on standard input")
    text = sys.stdin.read() if not words else words[0] if len(words) == 1 else shlex.join(words)
    result = translate(text)
    for note in result.notes:
        print(f"# {note}", file=sys.stderr)
    print(result.text)


if __name__ == "__main__":
    run_command(main)
