"""Results as a person reads them, on stdout. Data is never parsed as markup."""

from fasttune.display.results import (
    print_built,
    print_checked,
    print_facts,
    print_finding,
    print_metrics,
    print_predictions,
    print_recipes,
    print_run,
)

__all__ = [
    "print_built",
    "print_checked",
    "print_facts",
    "print_finding",
    "print_metrics",
    "print_predictions",
    "print_recipes",
    "print_run",
]
