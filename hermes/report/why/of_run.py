"""Why did the run go so? The master's own decisions in plain sentences. Pure."""

from __future__ import annotations

from typing import Any

from hermes.policy.weigh import SUMS
from hermes.report.why.decided import Decision
from hermes.report.why.of_log import SAY as OF_LOG
from hermes.report.why.phrases import Say, Setting, Told, clock, fact, listed, loss, when
from hermes.report.why.tell import SAY as OF_WORKERS
from hermes.report.why.tell import barrier, closed
from hermes.report.words import count, counted, duration
from hermes.values import SECOND, Reason


def told(decision: Decision, setting: Setting) -> Told:
    """The decision in words."""
    return SAY[decision.kind](decision, setting)


def _version(decision: Decision, setting: Setting) -> Told:
    details = decision.details
    number = details["merged_into"]
    title = f"version {number} ({clock(decision.at, setting)})"
    if not details["members"]:
        facts = decision.reason.facts
        forked = f"Version {facts.get('version')} of {facts.get('parent')}, bit for bit."
        first = forked if decision.reason.code == "forked" else "The job's first weights."
        return Told("version", title, first)
    body = (
        f"Made of {_updates(details['members'])}: {_closed(decision.reason)} "
        f"{_weights(decision)} It added {count(details['samples'])} samples, "
        f"{count(details['all_samples'])} in all.{_planned(details.get('superstep'))}"
    )
    return Told("version", title, body)


def _planned(planned: dict[str, Any] | None) -> str:
    if planned is None:
        return ""
    all_ = ", ".join(f"{name} {times}" for name, times in planned["quotas"].items())
    return f" Quotas until the next barrier: {all_}; {barrier(planned)}."


def _updates(names: list[str]) -> str:
    return f"the update{'s' if len(names) > 1 else ''} of {listed(names)}"


CLOSED = {
    "each-push": "every push makes a version.",
    "all-pushed": "all alive had pushed.",
}


def _closed(reason: Reason) -> str:
    return CLOSED[reason.code] if reason.code in CLOSED else closed(reason)


def _weights(decision: Decision) -> str:
    details, facts = decision.details, decision.reason.facts
    weights: dict[str, float] = details["weights"]
    total = details["keep"] + details["total"]
    shares = ", ".join(f"{name} {weight / total:.3f}" for name, weight in weights.items())
    if details["rule"] == "interpolate":
        mine, theirs = loss(facts.get("loss_worker")), loss(facts.get("loss_global"))
        kept = details["keep"] / total
        return (
            f"Weights by 1 / loss on validation: {shares} (loss {mine}); the version before "
            f"{kept:.3f} (loss {theirs})."
        )
    if details["rule"] in SUMS:
        added = ", ".join(f"{name} {weight:.3g}" for name, weight in weights.items())
        return f"Of what they changed is added: {added}."
    how = "all alike" if details["rule"] == "mean" else "by samples"
    return f"Weights {how}: {shares}.{_step(details.get('outer'))}"


def _step(outer: dict[str, float] | None) -> str:
    if outer is None:
        return ""
    ahead = ", looking one step ahead (nesterov)" if outer["nesterov"] else ""
    return f" The step: momentum {outer['momentum']:g}, rate {outer['rate']:g}{ahead}."


def _step_closed(decision: Decision, setting: Setting) -> Told:
    details, facts = decision.details, decision.reason.facts
    verdict = "a version is made" if details["sync"] else "everybody goes on"
    title = f"step {details['step']} ({clock(decision.at, setting)}): {verdict}"
    body = f"{fact(facts.get('stepped'))} workers had taken it"
    if facts.get("vetoed"):
        body += f" ({fact(facts['vetoed'])} of them threw it away)"
    if details["flags"]:
        body += f"; flagged by {listed(details['flags'])}"
    elif details["sync"]:
        body += f"; nobody flagged, and {fact(facts.get('waiting'))} updates waited for a version"
    else:
        body += "; nobody flagged, and all go on with their own models"
    pushers = details["pushers"]
    body += f". To push: {listed(pushers)}." if pushers else "."
    return Told("step", title, body)


def _evaluated(decision: Decision, setting: Setting) -> Told:
    details = decision.details
    title = f"version {details['scored']} evaluated ({clock(decision.at, setting)})"
    if details["loss"] is None:
        body = "Its loss on validation is not finite, or it could not be read."
    else:
        best = ", the best so far" if details["best"] else ""
        accuracy = details["accuracy"]
        right = "" if accuracy is None else f", {setting.metric} {accuracy:.4f}"
        of = details["workers"]
        where = f"On {count(details['n'])} samples of {counted(of, 'worker')}" if of else ""
        body = f"{where or 'On validation'}: loss {loss(details['loss'])}{right}{best}."
    cost = duration(details["cost"] / SECOND)
    more = f" It took {cost}; the next is due 0.5 s or ten times that after its start."
    return Told("evaluated", title, body + more)


def _scored(decision: Decision, setting: Setting) -> Told:
    details = decision.details
    parts = []
    for split in ("validation", "test"):
        found, right = details[f"{split}_loss"], details[f"{split}_accuracy"]
        share = "" if right is None else f", {setting.metric} {right:.4f}"
        parts.append(f"{split} loss {'not finite' if found is None else loss(found)}{share}")
    title = f"final scores ({clock(decision.at, setting)})"
    body = f"Version {details['scored']}, the last: {'; '.join(parts)}."
    return Told("final scores", title, body)


STOPS = {
    "accuracy": "accuracy on validation {accuracy} reached stop.accuracy {limit}",
    "loss": "loss on validation {loss} reached stop.loss {limit}",
    "patience": "{evaluations} evaluations without a new best; stop.patience is {limit}",
    "samples": "{samples} samples are merged; stop.samples is {limit}",
    "versions": "version {version} is published; stop.versions is {limit}",
    "seconds": "{seconds} s since training started; stop.seconds is {limit}",
    "diverged": "{rounds} rounds in a row brought nothing usable",
    "no-worker-can-train": "all {workers} workers that came cannot train the job ({worker}: {why})",
    "requested": "somebody asked for it ({by})",
    "interrupted": "its master was interrupted",
}


def _stopped(decision: Decision, setting: Setting) -> Told:
    reason = decision.reason
    try:
        why = STOPS[reason.code].format_map({k: fact(v) for k, v in reason.facts.items()})
    except KeyError:
        numbers = ", ".join(f"{name} {fact(value)}" for name, value in reason.facts.items())
        why = f"{reason.code} ({numbers})" if numbers else reason.code
    title = f"{decision.details['status']}, {when(decision, setting)}"
    return Told("stopped", title, f"The run ended: {why}.")


def _master(decision: Decision, setting: Setting) -> Told:
    term = decision.details["term"]
    body = "The first master of the run." if term == 1 else "It took over from the one before."
    return Told("master", f"master of term {term}, {when(decision, setting)}", body)


def _opened(decision: Decision, setting: Setting) -> Told:
    details = decision.details
    body = f"Strategy {details['strategy']}, seed {details['seed']}."
    return Told("opened", f"run opened ({clock(decision.at, setting)})", body)


def _data(decision: Decision, setting: Setting) -> Told:
    details = decision.details
    splits = ", ".join(f"{name} {count(number)}" for name, number in details["samples"].items())
    if details["own"]:
        splits = f"each worker brings its own; the master has {splits}"
    body = (
        f"Samples: {splits}. A first shard has {count(details['size'])} of them, batch "
        f"{details['batch']}."
    )
    return Told("data", f"data published ({clock(decision.at, setting)})", body)


def _training(decision: Decision, setting: Setting) -> Told:
    workers = decision.details["workers"]
    body = f"All who were expected had come: {workers} alive."
    return Told("training", f"training started, {when(decision, setting)}", body)


SAY: dict[str, Say] = {
    **OF_WORKERS,
    "version": _version,
    "step": _step_closed,
    "evaluated": _evaluated,
    "scored": _scored,
    "stopped": _stopped,
    "master": _master,
    "opened": _opened,
    "data": _data,
    "training": _training,
    **OF_LOG,
}
"""Kind -> its sentences; a test asserts that every kind is here."""
