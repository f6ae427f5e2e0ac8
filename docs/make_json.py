"""Write what docs/json.md says of fields, from the models of mfas_optuna.cli.schemas.

python docs/make_json.py
"""

from __future__ import annotations

from pathlib import Path

from mfas_optuna.cli.schemas import document

FILE = Path(__file__).with_name("json.md")
MARK = "<!-- Below this line: written by docs/make_json.py. -->\n"


def main() -> None:
    head, mark, _ = FILE.read_text(encoding="utf-8").partition(MARK)
    assert mark
    FILE.write_text(f"{head}{MARK}\n{document().rstrip()}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
