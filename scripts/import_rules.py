"""A contract for import-linter: what a package may import at all.

The contracts that import-linter has forbid; what nobody thought of they allow. This one has, for a package,
the complete list: other packages of ours, libraries, and modules of the standard library, either each by its
name or all of them (``stdlib``). Modules behind ``if TYPE_CHECKING`` count like all others.
"""

from __future__ import annotations

import sys
from typing import Any

from importlinter import Contract, ContractCheck, fields, output

STDLIB = "stdlib"


class AllowListContract(Contract):
    """The modules of ``package`` import, beside each other, nothing but ``may_import`` and what is below."""

    type_name = "allow_list"

    package = fields.StringField()
    may_import = fields.SetField(subfield=fields.StringField())

    def check(self, graph: Any, verbose: bool) -> ContractCheck:  # noqa: ARG002 - the interface's
        """Look at each import of each module."""
        package, allowed = str(self.package), {str(name) for name in self.may_import}  # type: ignore[attr-defined]
        if STDLIB in allowed:
            allowed |= sys.stdlib_module_names
        allowed |= {"__future__", "typing", package}
        found = [
            (module, imported)
            for module in sorted({package} | graph.find_descendants(package))
            for imported in sorted(graph.find_modules_directly_imported_by(module))
            if not _covers(allowed, imported)
        ]
        return ContractCheck(kept=not found, metadata={"found": found})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Name each import."""
        for module, imported in check.metadata["found"]:
            output.print_error(f"{module} imports {imported}, which {self.package} may not")
        output.new_line()


def _covers(allowed: set[str], module: str) -> bool:
    """Whether a module is allowed, or below one that is."""
    parts = module.split(".")
    return any(".".join(parts[:length]) in allowed for length in range(1, len(parts) + 1))
