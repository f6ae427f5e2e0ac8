"""Draw the README's picture: what `mfas-optuna search --study digits` prints at its end, from a finished search.

MFAS_HOME=... python docs/make_picture.py docs/result.svg
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from unittest import mock

from rich.console import Console

from mfas_optuna.cli import output
from mfas_optuna.cli.options import request_of
from mfas_optuna.cli.view import QuietView
from mfas_optuna.worker.search import search as run_search


def main() -> None:
    request = request_of("digits", name=None, storage=None)
    outcome = run_search(request, QuietView())
    with Path("/dev/null").open("w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=92, highlight=False, file=nowhere, force_terminal=True)
        with mock.patch.object(output, "make_console", return_value=console):
            console.print("[bold]$ mfas-optuna search --study digits[/bold]")
            output.print_outcome(request, outcome, as_json=False)
        picture = console.export_svg(title="mfas-optuna")
    picture = re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)  # Nothing is fetched to show it.
    Path(sys.argv[1]).write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()
