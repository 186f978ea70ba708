"""The program `hermes`: one file a group of commands. Importing it is cheap; see `entry`."""

from __future__ import annotations


def main() -> None:
    """The console script."""
    from hermes.cli.entry import main as enter

    enter()
