"""What ``setup.py`` says, read without running it."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]


def compiled_modules():
    """The modules that the accelerator consists of, by their dotted names."""
    for statement in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "COMPILED":
            files = ast.literal_eval(statement.value)
            return [file.removesuffix(".py").replace("/", ".") for file in files]
    raise AssertionError("setup.py names no COMPILED")
