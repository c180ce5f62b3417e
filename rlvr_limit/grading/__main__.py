"""Grades files of answers from the shell, without a run: python -m rlvr_limit.grading COMMAND --help."""

import importlib
import sys

from rlvr_limit.types import UserError, not_allowed

COMMANDS = {"math": "rlvr_limit.grading.math_command", "code": "rlvr_limit.grading.code_command"}
"""Command to the module whose main(arguments) -> exit code does it."""


def main(argv: list[str]) -> int:
    """Runs the command that argv[1] names; returns the exit code (2 bad input, 130 interrupted)."""
    try:
        name = argv[1] if len(argv) > 1 else None
        if name not in COMMANDS:
            raise not_allowed("command", name, f"one of {', '.join(COMMANDS)}")
        return importlib.import_module(COMMANDS[name]).main(argv[2:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv))
