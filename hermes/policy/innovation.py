"""Has a worker learned enough to say? The budgeted innovation gate (notes: G1). Pure.

No loss says when: a loss of one round is mostly noise. The score is what the unsent steps came
to, by sample: |unsent|^2 / samples. Under gradient noise alone it stays where it is, however long a
worker waits; where the steps have a direction it grows with them. The threshold follows the scores,
so that a chosen share of the rounds pushes, whatever their scale:

1. Nothing learned (a norm of 0): quiet, always.
2. `longest` rounds since the last push: push. Fewer than `shortest`: quiet. A `rate` of 1: push.
3. score >= threshold: push. The first score of all is its own threshold. The first `warm` scores
   are so, too: first steps are the longest, and a threshold that began with them would keep a
   worker silent until it has come down, by a step a round.
4. What would be pushed by 3 is put to a test (`policy/paired.py`): where it makes the loss on the
   probe worse than that of the version it goes out from, by more than `veto` standard errors, it is
   vetoed: thrown away, and the worker begins again from the newest version. A veto is no push:
   rounds are counted on, and what is due by 2 goes out untested, so that nobody is silent for
   longer than allowed even where every single model is worse than their mean.
5. The threshold is multiplied by (1 + `gain`) ** (1 - `rate`) where 2 or 3 fired, and divided by
   (1 + `gain`) ** `rate` at a quiet round: it stays where it is if the share of rounds that fire
   is `rate`. While it is warming it follows the score itself.

Family: event-triggered SGD (SPARQ-SGD, arXiv 1910.14280; EventGraD, arXiv 2103.07454); the control
of the rate instead of a level is ours.
"""

from __future__ import annotations

import math

from hermes.errors import SettingError
from hermes.policy.paired import worse
from hermes.policy.verdict import GateSettings, GateState, Learned, Push, Verdict
from hermes.values import Facts, Reason

TESTED = frozenset({"drifted", "every-round"})
"""Codes of pushes that a paired test may veto."""

WARMING: tuple[Push, str] = ("push", "warming")


def gate(settings: GateSettings, state: GateState, loss: float, learned: Learned) -> Verdict:
    """Push iff what was learned since the last push is worth it."""
    if not math.isfinite(loss):
        return Verdict("veto", Reason("loss-not-finite", {"loss": str(loss)}), state)
    if not math.isfinite(learned.drift):
        return Verdict("veto", Reason("not-finite", {"drift": str(learned.drift)}), state)
    rounds = state.quiet + 1
    facts: Facts = {"loss": loss, "drift": learned.drift, "samples": learned.samples}
    facts |= {"rounds": rounds, "threshold": state.threshold}
    if not learned.drift or not learned.samples:
        still = GateState(state.window, rounds, state.threshold)
        return Verdict("quiet", Reason("no-drift", facts), still)
    score = learned.drift * learned.drift / learned.samples
    facts["score"] = score
    warming = len(state.window) < settings.warm and rounds >= settings.shortest
    push, code = WARMING if warming else _answer(settings, state, score)
    seen = (*state.window, score) if warming else state.window
    after = score if warming else _followed(settings, state.threshold or score, push)
    if code in TESTED and settings.veto is not None and learned.paired is not None:
        d, se, n = learned.paired
        # As text where it is not finite: JSON has no word for it.
        facts |= {
            "d": d if math.isfinite(d) else str(d),
            "se": se if math.isfinite(se) else str(se),
        }
        facts |= {"n": n, "limit": settings.veto}
        if worse(learned.paired, settings.veto):
            push, code = "veto", "worse"
    quiet = 0 if push == "push" else rounds
    return Verdict(push, Reason(code, facts), GateState(seen, quiet, after))


def wants_test(settings: GateSettings, verdict: Verdict) -> bool:
    """Whether the push that this verdict says, without a test, waits for one."""
    return settings.veto is not None and verdict.reason.code in TESTED


def _answer(settings: GateSettings, state: GateState, score: float) -> tuple[Push, str]:
    rounds = state.quiet + 1
    if rounds >= settings.longest:
        return "push", "overdue"
    if rounds < settings.shortest:
        return "quiet", "too-soon"
    if settings.rate == 1:
        return "push", "every-round"
    return ("push", "drifted") if score >= state.threshold else ("quiet", "little-drift")


def _followed(settings: GateSettings, threshold: float, push: Push) -> float:
    power = 1 - settings.rate if push == "push" else -settings.rate
    return threshold * math.pow(1 + settings.gain, power)


def check(settings: GateSettings) -> list[str]:
    """Warnings; raises `SettingError` for rounds that contradict each other."""
    if settings.longest < settings.shortest:
        raise SettingError(
            f"gate.longest is {settings.longest}, gate.shortest {settings.shortest}",
            remedy="A worker pushes after `longest` rounds at the latest, after `shortest` at the "
            "soonest: raise the one or lower the other.",
        )
    if settings.rate < 1 / settings.longest:
        return [
            f"gate.rate={settings.rate:g} cannot be kept: gate.longest={settings.longest} makes "
            f"every worker push in {1 / settings.longest:.3g} of its rounds at least"
        ]
    if settings.rate > 1 / settings.shortest:
        return [
            f"gate.rate={settings.rate:g} cannot be reached: gate.shortest={settings.shortest} "
            f"lets a worker push in {1 / settings.shortest:.3g} of its rounds at most"
        ]
    return []
