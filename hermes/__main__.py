"""`python -m hermes` is `hermes`."""

from __future__ import annotations

from hermes.cli import main

if __name__ == "__main__":
    main()
