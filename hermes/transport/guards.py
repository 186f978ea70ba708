"""Who may come in at a broker, and do what there? Asked and told, where the broker checks it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from hermes.transport.rights import Right


class Guards(Protocol):
    """Users and rights of one broker. Each method raises `BrokerRefused` where it says no, and
    `BrokerUnreachable`."""

    def users(self) -> list[str]:
        """Those with a password (SCRAM), sorted."""
        ...

    def revoked(self) -> list[str]:
        """Whose password `drop_user` has taken, and who was given none since, sorted."""
        ...

    def set_user(self, name: str, password: str) -> None:
        """Make a user, or give it a new password."""
        ...

    def drop_user(self, name: str) -> None:
        """Take its password away: new connections fail; those that are open stay (see `forbid`)."""
        ...

    def allow(self, rights: Iterable[Right]) -> None:
        """Give rights; ones that are there already stay as they are."""
        ...

    def forget_rights(self, prefix: str, user: str | None = None) -> None:
        """Take the rules for topics that are named, or begin, with `prefix`: of a user, else of
        all, those of `forbid` for one ("*") too."""
        ...

    def forbid(self, user: str) -> None:
        """Take every topic from a user, at once, on open connections too."""
        ...
