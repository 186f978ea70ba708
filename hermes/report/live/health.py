"""Does a worker get on: slow, quiet, silent, stuck, cut off, dead? Told from what is known. Pure.

The words are kept apart on purpose. *Slow* and *quiet* workers are well. A *silent* one has missed
heartbeats and is not lost yet. A *stuck* one lives and gets nowhere. One that is lost for its
silence is *dead or cut off*: from afar nobody can tell, until it is back (then it was cut off), or
another process has come under its name (then it had died), or this machine knows that its process
is gone (then it is *dead*).
"""

from __future__ import annotations

import statistics

from hermes.machine.state import MasterState, Member
from hermes.report import words
from hermes.report.live.recent import Recent
from hermes.report.live.waits import CALM, Around, Standing

SLOW = 2.0
"""A worker is slow whose samples take more than so many times as long as the others' (median)."""

QUIET = 3
"""Quiet rounds in a row, from which on a worker is called quiet."""

CAME = ("back", "admitted", "admitted-again")

GONE = "dead or cut off"


def health(
    state: MasterState, recent: Recent, member: Member, stands: Standing, around: Around = CALM
) -> str:
    """One word ("dead", "revoked", "stuck", "slow", "quiet"), or "dead or cut off"; where nothing
    is remarkable it is that of `standing`."""
    over = member.status == "left" or state.stopped is not None
    if member.name in around.dead and not over:
        return "dead"
    if member.name in around.revoked and not over:
        return "revoked"
    if member.status == "lost":
        return "stuck" if recent.lost.get(member.name) == "stuck" else GONE
    if stands.word != "training":
        return stands.word
    if slow(state, recent, member.name):
        return "slow"
    return "quiet" if recent.quiet.get(member.name, 0) >= QUIET else "training"


def slow(state: MasterState, recent: Recent, worker: str) -> bool:
    """Whether its samples take much longer than those of the others alive, while they train."""
    mine = recent.speed(worker)
    others = [recent.speed(name) for name in state.alive() if name != worker]
    speeds = [speed for speed in others if speed is not None]
    if mine is None or not speeds:
        return False
    return statistics.median(speeds) > SLOW * mine


def shown(word: str, stands: Standing) -> str:
    """As a table has it: `silent 7.0 s`."""
    if word == "silent" and stands.seconds is not None:
        return f"silent {words.age(stands.seconds)}"
    return word


def last_decision(recent: Recent, member: Member) -> str:
    """The last decision about this worker; of one that came back, from what."""
    returned = recent.returned.get(member.name)
    if returned is not None and member.last.code in CAME:
        return returned
    return words.decided(member.last)
