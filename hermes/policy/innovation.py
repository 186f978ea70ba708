"""Has a worker learned enough to say? The budgeted innovation gate (notes: G1). Pure.

No loss is looked at: a loss of one round is mostly noise. The score is what the unsent steps came
to, by sample: |unsent|^2 / samples. Under gradient noise alone it stays where it is, however long a
worker waits; where the steps have a direction it grows with them. The threshold follows the scores,
so that a chosen share of the rounds pushes, whatever their scale:

1. Nothing learned (a norm of 0): quiet, always.
2. `longest` rounds since the last push: push. Fewer than `shortest`: quiet.
3. score >= threshold: push. The first score of all is its own threshold.
4. The threshold is multiplied by 1 + `gain` * (1 - `rate`) at a push, and divided by 1 + `gain` *
   `rate` at a quiet round: at rest the share of pushes is `rate`, nearly.

Family: event-triggered SGD (SPARQ-SGD, arXiv 1910.14280; EventGraD, arXiv 2103.07454); the control
of the rate instead of a level is ours.
"""

from __future__ import annotations

import math

from hermes.errors import SettingError
from hermes.policy.verdict import GateSettings, GateState, Learned, Push, Verdict
from hermes.values import Facts, Reason


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
        return Verdict("quiet", Reason("no-drift", facts), GateState((), rounds, state.threshold))
    score = learned.drift * learned.drift / learned.samples
    facts["score"] = score
    push, code = _answer(settings, state, score)
    after = _followed(settings, state.threshold or score, push)
    quiet = 0 if push == "push" else rounds
    return Verdict(push, Reason(code, facts), GateState((), quiet, after))


def _answer(settings: GateSettings, state: GateState, score: float) -> tuple[Push, str]:
    rounds = state.quiet + 1
    if rounds >= settings.longest:
        return "push", "overdue"
    if rounds < settings.shortest:
        return "quiet", "too-soon"
    return ("push", "drifted") if score >= state.threshold else ("quiet", "little-drift")


def _followed(settings: GateSettings, threshold: float, push: Push) -> float:
    if push == "push":
        return threshold * (1 + settings.gain * (1 - settings.rate))
    return threshold / (1 + settings.gain * settings.rate)


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
