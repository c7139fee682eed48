"""The command `snugnet` for tests: as `python -m`, so that it can find the tests' own steps."""

from __future__ import annotations

from service.cli import main

if __name__ == "__main__":
    main()
