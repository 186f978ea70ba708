"""Why has a shard this size? A re-sizing, or that there was none, in sentences. Pure."""

from __future__ import annotations

from hermes.policy.resting import TOO_SLOW, TRIED_AGAIN
from hermes.report.why.decided import Decision
from hermes.report.why.phrases import Setting, Told, fact, many, seconds, when
from hermes.report.words import count
from hermes.values import Facts, Reason


def resized(decision: Decision, setting: Setting) -> Told:
    details = decision.details
    change = f"{count(details['before'])} -> {count(details['size'])} samples"
    if details["batch"] != details["before_batch"]:
        change += f", batch {details['before_batch']} -> {details['batch']}"
    code = decision.reason.code
    if code in ALONE:
        body = f"{alone(decision.reason)[0].upper()}{alone(decision.reason)[1:]}."
    else:
        body = _pace(decision, setting) if code != "by-speed" else _share(decision)
    return Told("re-sized", f"re-sized, {when(decision, setting)}: {change}", body)


ALONE = {
    "on-trial": "it is on trial: none of the {alive} alive is measured yet, the quickest will "
    "train alone",
    "quickest": "it trains alone: with {speed} samples a second it is the quickest of those that "
    "were measured ({alive} alive)",
    "not-quickest": "{quickest} trains alone, with {its} samples a second the quickest; this "
    "worker (measured: {speed}) has no work meanwhile",
    TOO_SLOW: "it rests: it trains {speed} samples a second, and {quickest}, the quickest, {its}; "
    "that is too few where size.slowest is {slowest}. It stands by, and nobody waits for it",
    TRIED_AGAIN: "it has work again: it is a new process, and nothing is measured of it yet",
}
"""Code -> why some train and others do not; `{...}` stand for facts."""


def alone(reason: Reason) -> str:
    """Why this worker trains alone, or does not train."""
    try:
        return ALONE[reason.code].format_map({k: fact(v) for k, v in reason.facts.items()})
    except KeyError:
        return reason.code


def _pace(decision: Decision, setting: Setting) -> str:
    facts, details, size_ = decision.reason.facts, decision.details, setting.settings.size
    if not all(isinstance(facts.get(name), int | float) for name in ("time", "a", "b", "steps")):
        return f"{decision.reason.code}."
    a, b = facts["a"], facts["b"]
    start = f"{seconds(a)} + " if a else ""
    passes = setting.settings.round.epochs
    return (
        f"Its round took {seconds(facts['time'])}; {_limits(decision, setting)}, so it is an "
        f"outlier (beyond {size_.fence:g} IQR). Over its last {many(details['rounds'], 'round')} "
        f"n steps took t = {start}{seconds(b)} * n (a = {fact(a)}, b = {fact(b)}); steps = "
        f"(median - a) / b = {fact(facts['steps'])} meet the median; times batch "
        f"{details['before_batch']} over {passes} {'pass' if passes == 1 else 'passes'}: "
        f"{count(details['size'])} samples, batch {details['batch']}.{_bound(facts)}"
    )


def _bound(facts: Facts) -> str:
    """That it would have more, if its pool held more."""
    if "pool" not in facts:
        return ""
    wanted = f"; {count(int(facts.get('wanted') or 0))} would do" if "wanted" in facts else ""
    return f" Its pool holds no more{wanted}."


def _limits(decision: Decision, setting: Setting) -> str:
    facts, size_ = decision.reason.facts, setting.settings.size
    others = ", ".join(seconds(value) for value in decision.details["others"])
    q1, q3, iqr = (float(facts.get(name) or 0.0) for name in ("q1", "q3", "iqr"))
    low, high = max(0.0, q1 - size_.fence * iqr), q3 + size_.fence * iqr
    return (
        f"the others' {others} (Q1 {seconds(q1)}, median {seconds(facts.get('median'))}, Q3 "
        f"{seconds(q3)}; limits {seconds(low)} .. {seconds(high)})"
    )


def _share(decision: Decision) -> str:
    facts = decision.reason.facts
    return (
        f"It trains {fact(facts.get('speed'))} samples a second (the median of its last rounds); "
        f"in proportion to all workers' speeds its share of the {facts.get('total')} samples that "
        f"all shards hold together is {facts.get('share')}.{_bound(facts)}"
    )


def kept(decision: Decision, setting: Setting) -> Told:
    head = f"Its shard keeps {count(decision.details['size'])} samples: "
    title = f"size kept, {when(decision, setting)}"
    return Told("size kept", title, f"{head}{_kept_since(decision, setting)}.")


def _kept_since(decision: Decision, setting: Setting) -> str:
    facts, size_ = decision.reason.facts, setting.settings.size
    code, took = (
        decision.reason.code,
        f"its round took {seconds(decision.reason.facts.get('time'))}",
    )
    if code == "too-few":
        others = many(int(facts.get("others") or 0), "other")
        return f"{others} finished a round so far, and the rule looks at three or more"
    if code == "near-median":
        median = seconds(facts.get("median"))
        return f"{took}, within {100 * size_.near:g} % of the others' median {median}"
    if code == "inside":
        return f"{took}, inside the limits; {_limits(decision, setting)}"
    if code == "nothing-fits":
        return f"{took}, an outlier, but not one step a pass would meet the others' median"
    if code == "same-size":
        return _same(facts, took)
    if code == "dead-band":
        share = facts.get("share")
        return f"its share would be {share}, a change within {100 * size_.deadband:g} %"
    if code in ALONE:
        return alone(decision.reason)
    return "no round of this batch was measured yet" if code == "no-timing" else code


def _same(facts: Facts, took: str) -> str:
    if "steps" not in facts:
        return f"its share is {facts.get('share')} samples, as before"
    median, steps = seconds(facts.get("median")), fact(facts.get("steps"))
    return (
        f"{took}, an outlier; {steps} steps would meet the others' median {median}, and that is "
        "this size"
    )
