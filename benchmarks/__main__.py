"""Run a benchmark by name; each is a module of this package with a function ``main``."""

from __future__ import annotations

import importlib
import pkgutil
import sys

import benchmarks


def names() -> list[str]:
    """Names of the benchmarks."""
    return [m.name for m in pkgutil.iter_modules(benchmarks.__path__) if m.name[0] != "_"]


def main(arguments: list[str]) -> int:
    """Run the benchmark that the first argument names, with the others."""
    if not arguments or arguments[0] not in names():
        print(f"python -m benchmarks NAME [options]; names: {', '.join(names())}", file=sys.stderr)
        return 2
    return importlib.import_module(f"benchmarks.{arguments[0]}").main(arguments[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
