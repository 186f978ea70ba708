"""Why was it decided so? A decision about a worker in plain sentences, with its numbers. Pure."""

from __future__ import annotations

from typing import Any

from hermes.policy.norm import ABSURD, TIMES
from hermes.policy.pace import SPREADS
from hermes.policy.weigh import SUMS
from hermes.report.why.decided import Decision
from hermes.report.why.of_size import kept, resized
from hermes.report.why.phrases import (
    Say,
    Setting,
    Told,
    apart,
    clock,
    fact,
    listed,
    loss,
    many,
    seconds,
    when,
)
from hermes.report.words import count, duration, size
from hermes.values import SECOND, Facts, Reason

# --- rounds -------------------------------------------------------------------------------------

SHORT = SECOND // 10_000
"""Times below are not worth a word."""

VERDICTS = {"push": "pushed", "quiet": "stayed quiet", "veto": "vetoed", "flag": "flagged"}


def _round(decision: Decision, setting: Setting) -> Told:
    details = decision.details
    verdict = VERDICTS.get(details["verdict"], str(details["verdict"]))
    again = f" of its start {details['start']}" if details["start"] > 1 else ""
    title = f"round {details['round']}{again}, {when(decision, setting)}: {verdict}"
    return Told(verdict, title, f"{_gate(decision)} {_work(decision)}")


def _gate(decision: Decision) -> str:
    facts, details = decision.reason.facts, decision.details
    code, window = decision.reason.code, details["window"]
    if code == "open":
        return "The gate is open: every round is pushed."
    if code == "loss-not-finite":
        return (
            f"Its probe loss is {facts.get('loss')}, not finite: the round is thrown away, and it "
            "begins again from the newest version."
        )
    if code == "first-loss":
        return (
            f"Probe loss {loss(facts.get('loss'))} is the first of its window (since its start, or "
            f"its last push): one loss has no spread.{_decay(decision)}"
        )
    if "drift" in facts:
        return _drift(decision)
    if "gradient" in facts:
        return _gradient(decision)
    losses = ", ".join(loss(value) for value in window)
    if code == "no-spread":
        return f"Its last {len(window)} probe losses are all alike ({losses}): z is not defined."
    z, threshold = facts.get("z"), facts.get("threshold")
    if not isinstance(z, float) or not isinstance(threshold, int | float):
        return f"{code}."
    shown, limit = apart(z, float(threshold))
    side = "below" if z < 0 else "above"
    sign = "<=" if z <= threshold else ">"
    return (
        f"Probe loss {loss(facts.get('loss'))} lies {shown.lstrip('-')} deviations {side} the mean "
        f"{loss(facts.get('mean'))} of its last {len(window)} losses ({losses}): z = {shown} "
        f"{sign} threshold {limit}.{_decay(decision)}"
    )


def _drift(decision: Decision) -> str:
    """Of `gate.rule=innovation`."""
    facts, code = decision.reason.facts, decision.reason.code
    said = (
        f"What it learned and has not sent has norm {_of(facts, 'drift')}, by "
        f"{_of(facts, 'samples')} samples"
    )
    if "score" in facts:
        said += f": score {_of(facts, 'score')}, threshold {_of(facts, 'threshold')}"
    if "d" not in facts:
        return f"{said}: {code}."
    if not facts.get("n"):
        return f"{said}: {code}. The probe is too small to put it to the test."
    test = (
        f"On the probe it changes the loss of the version that it goes out from by "
        f"{_of(facts, 'd')}, standard error {_of(facts, 'se')} over {_of(facts, 'n')} blocks of "
        f"samples; what is worse by more than {_of(facts, 'limit')} of these is vetoed."
    )
    thrown = " It is thrown away, and the worker begins again from the newest version."
    return f"{said}. {test}{thrown if code == 'worse' else ''}"


def _gradient(decision: Decision) -> str:
    """Of `gate.rule=gradient`."""
    facts, code = decision.reason.facts, decision.reason.code
    said = f"The gradient of its last step has norm {_of(facts, 'gradient')}"
    if code == "not-finite":
        return f"{said}: the round is thrown away, and it begins again from the newest version."
    if not facts.get("before"):
        return f"{said}: there is none before to compare it with, which counts as no change."
    sign = ">=" if code == "changed" else "<"
    return (
        f"{said}. The mean of its square, newer ones weighing more, went from "
        f"{_of(facts, 'before')} to {_of(facts, 'smoothed')}: a change of {_of(facts, 'change')} "
        f"{sign} delta {_of(facts, 'delta')}."
    )


def _of(facts: Facts, name: str) -> str:
    return fact(facts.get(name))


def _decay(decision: Decision) -> str:
    details, before = decision.details, decision.reason.facts.get("threshold")
    after = details["next_threshold"]
    if details["verdict"] != "quiet" or not isinstance(before, int | float) or after == before:
        return ""
    rounds = details["quiet"]
    return f" {rounds} quiet rounds in a row: the threshold gives way to {after:.2f}."


def _work(decision: Decision) -> str:
    details = decision.details
    text = (
        f"It trained {many(details['steps'], 'step')}, {many(details['samples'], 'sample')}, "
        f"from version {details['base']} in {duration(details['busy'] / SECOND)}"
    )
    if details["waited"] < SHORT:
        return f"{text}."
    moved = details["moved"]
    told = moved >= SHORT
    under_way = f", {duration(moved / SECOND)} of it for tensors under way" if told else ""
    return f"{text}, after waiting {duration(details['waited'] / SECOND)}{under_way}."


# --- updates ------------------------------------------------------------------------------------


def _taken(decision: Decision, setting: Setting) -> Told:
    details = decision.details
    stale = details["staleness"]
    old = f", {many(stale, 'version')} old" if stale else ""
    rounds = f" of {many(details['rounds'], 'round')}" if details["rounds"] > 1 else ""
    body = (
        f"Its update{rounds} from version {details['base']} ({many(details['samples'], 'sample')},"
        f" {size(details['bytes'])}{old}) was taken {when(decision, setting)}."
    )
    return Told("taken", f"update taken, {when(decision, setting)}", body)


def _merged(decision: Decision, setting: Setting) -> Told:
    details = decision.details
    version = details["merged_into"]
    body = (
        f"It was merged into version {version} ({clock(decision.at, setting)}, "
        f"{_after(decision)}) {_weight(decision)}{_quorum(decision)}{_next(decision)}"
    )
    return Told("merged", f"merged into version {version} ({clock(decision.at, setting)})", body)


def _next(decision: Decision) -> str:
    """What it trains on this version, where that was planned."""
    planned = decision.details.get("superstep")
    if planned is None or decision.worker not in planned["quotas"]:
        return ""
    return f" Until the next barrier: {quota(planned, decision.worker)}; {barrier(planned)}."


def quota(planned: dict[str, Any], worker: str) -> str:
    """`3 rounds' work in one`."""
    times = planned["quotas"][worker]
    return "one round" if times == 1 else f"{times} rounds' work in one"


def barrier(planned: dict[str, Any]) -> str:
    """Why those are the quotas."""
    if planned["code"] == "unmeasured":
        return f"all take one step alike, since {planned.get('worker')} was not measured yet"
    return (
        f"the predicted ends (up to {planned['lookahead']} of each) lie nearest each other there, "
        f"{seconds(planned['spread'])} apart, {seconds(planned['barrier'])} from the version"
    )


def _after(decision: Decision) -> str:
    arrived = decision.details["arrivals"].get(decision.worker, decision.at)
    return f"{duration((decision.at - arrived) / SECOND)} after it was taken"


def _weight(decision: Decision) -> str:
    details, facts = decision.details, decision.reason.facts
    weight, total = details["weight"], details["keep"] + details["total"]
    share = weight / total if total else 0.0
    if details["rule"] == "interpolate":
        mine, theirs = loss(facts.get("loss_worker")), loss(facts.get("loss_global"))
        return (
            f"with weight {share:.3f} = (1/{mine}) / (1/{mine} + 1/{theirs}): its loss on "
            f"validation is {mine}, the global model's {theirs}."
        )
    if details["rule"] in SUMS:
        return f"with weight {weight:.3g}: so much of what it changed was added."
    how = "all weigh alike" if details["rule"] == "mean" else "its samples"
    if weight < details["own_samples"] and details["rule"] == "momentum":
        how = "its samples / sqrt(1 + staleness)"
    return f"with weight {share:.3f} = {weight:g} / {total:g} ({how})."


def _quorum(decision: Decision) -> str:
    arrivals: dict[str, int] = decision.details["arrivals"]
    if decision.reason.code in MANY:
        return f" The version closed: {closed(decision.reason)}"
    if decision.reason.code != "all-pushed" or len(arrivals) < 2:
        return ""
    first, last = min(arrivals, key=arrivals.__getitem__), max(arrivals, key=arrivals.__getitem__)
    apart = duration((arrivals[last] - arrivals[first]) / SECOND)
    return (
        f" The version closed when all {len(arrivals)} alive had pushed: {last} was the last, "
        f"{apart} after {first}."
    )


MANY = {
    "count-pushed": "{pushed} updates waited; it takes {count}, and no more than are alive "
    "({alive}) are waited for.",
    "synced": "a step was flagged, and all {pushed} who were to push had.",
    "quorum": "{pushed} of {alive} alive had pushed and {quiet} were quiet, where {quorum} make a "
    "quorum; that was there for {waited} s (the grace: {grace} s).",
}
"""Code -> why a version closed over some of the updates; `{...}` stand for facts."""


def closed(reason: Reason) -> str:
    """Why a version of several updates closed."""
    try:
        return MANY[reason.code].format_map({k: fact(v) for k, v in reason.facts.items()})
    except KeyError:
        return reason.code


def _rejected(decision: Decision, setting: Setting) -> Told:
    body = f"It was rejected {when(decision, setting)}: {_refusal(decision)}."
    return Told("rejected", f"update rejected, {when(decision, setting)}", body)


def _refusal(decision: Decision) -> str:
    facts, code = decision.reason.facts, decision.reason.code
    pattern = REFUSALS.get(f"{code} {'median' in facts}", REFUSALS.get(code))
    if pattern is not None:
        try:
            return pattern.format_map(
                {k: loss(v) if "loss" in k else fact(v) for k, v in facts.items()}
            )
        except KeyError:
            pass
    numbers = ", ".join(f"{name} {fact(value)}" for name, value in facts.items())
    return f"{code} ({numbers})" if numbers else code


HELD = "the version that it was held against"

REFUSALS = {
    "too-stale": "since its oldest step {staleness} versions were published, and "
    "{max_staleness} are allowed",
    "not-quickest": "{quickest} trains alone, with {its} samples a second the quickest (this "
    "worker: {speed})",
    "unknown-base": "it says that it started from version {base}, which is none of this run",
    "from-the-future": "it says that it started from version {base}, and the newest was {newest}",
    f"{ABSURD} False": f"its model lies {{norm}} from {HELD}, and {{limit}} is the most that is "
    "believed (merge.max_norm; with {known} norms known)",
    f"{ABSURD} True": f"its model lies {{norm}} from {HELD}, and {{limit}} is the most that is "
    f"believed: {TIMES:g} times {{median}}, the median of the last {{known}} that were merged",
    "malformed": "what it claims of its {claim} cannot be",
    "unreadable": "its tensors could not be read ({why})",
    "not-finite": "its tensor {tensor} holds NaN or infinity",
    "wrong-names": "its tensors are not the model's ({missing} missing, {unexpected} unexpected; "
    "the first is {tensor})",
    "wrong-shape": "its tensor {tensor} is {found}, the model's {wanted}",
    "wrong-dtype": "its tensor {tensor} is {found}, the model's {wanted}",
    "wrong-codec": "its tensors travel as {codec}, and {wanted} was to come",
    "loss-not-finite": "no weight can be made of its loss on validation, {loss_worker} (the global "
    "model's is {loss_global})",
    "loss-negative": "no weight can be made of a negative loss: {loss_worker} on validation (the "
    "global model's is {loss_global})",
    "loss-zero": "no weight can be made of a loss of zero: {loss_worker} on validation (the global "
    "model's is {loss_global})",
}
"""Code -> why an update was rejected; `{...}` stand for facts."""


# --- who comes and goes -------------------------------------------------------------------------

ADMITTED = {
    "admitted": "admitted",
    "admitted-again": "admitted again, as a new process",
    "admitted-by-new-master": "admitted by a new master",
}


def _admitted(decision: Decision, setting: Setting) -> Told:
    details, code = decision.details, decision.reason.code
    title = f"{ADMITTED[code]}, {when(decision, setting)}"
    shard = f"{count(details['size'])} samples, batch {details['batch']}"
    if code == "admitted" and details.get("own") is not None:
        body = (
            f"It brings {count(details['own'])} samples of its own, and trains on "
            f"{count(details['train'])} of them. Its first shard: {shard}."
        )
    elif code == "admitted":
        first = f"{details['first']}, {count(details['train'])} train samples / {details['expect']}"
        body = f"Its first shard: {shard} (the smaller of {first} workers expected)."
    else:
        body = f"Its shard stays {shard}."
    if details["pool"] >= 0:
        body += (
            f" It is granted from pool {details['pool']}, {count(details['pool_size'])} samples."
        )
    software = details["software"] or {}
    parts = [f"Hermes {software.get('hermes')}", f"Python {software.get('python')}"]
    parts += [software["machine"]] if software.get("machine") else []
    where = f" It runs {', '.join(parts)}." if software else ""
    return Told("admitted", title, f"{body} It begins from version {details['base']}.{where}")


REFUSED = {
    "bad-name": "a name is {rule}",
    "other-version": "it runs Hermes {worker}, the master {master}",
    "too-many": "{limit} names have taken part, as many as may (workers.max)",
    "incarnation-taken": "it calls its process as another worker calls its own",
    "name-taken": "another process of this name is heard, and it does not follow on that one",
    "run-stopped": "the run had stopped",
    "no-pool": "the data was divided into {pools} pools, and each has its worker (data.pools)",
    "data-granted": "it brings data, and the run grants its own",
    "no-data": "it brings no data, and in this run each worker does",
    "too-few-samples": "it brings {samples} samples, and {least} are the fewest",
    "other-samples": "it brings samples of {brings}, the others of {run}",
    "other-data": "it came with other data than before",
}


def _refused(decision: Decision, setting: Setting) -> Told:
    reason = decision.reason
    try:
        why = REFUSED[reason.code].format_map(reason.facts)
    except KeyError:
        why = reason.code
    return Told("refused", f"refused, {when(decision, setting)}", f"It was not let in: {why}.")


def _lost(decision: Decision, setting: Setting) -> Told:
    facts = decision.reason.facts
    title = f"declared lost, {when(decision, setting)}"
    if decision.reason.code == "stuck":
        body = (
            f"It was alive, and for {fact(facts.get('seconds'))} s its heartbeats told of no step "
            f"beyond {fact(facts.get('steps'))}, nor did anything else come; "
            f"{_allowed(facts, 'rounds')}. (Heartbeats are not in the ledger: this is what the "
            "master heard.)"
        )
        return Told("lost", title, body)
    body = (
        f"It was silent for {fact(facts.get('silent'))} s, {_allowed(facts, 'signs of life')}, "
        "and its topic had been read to its end. (The silence is what the "
        "master heard: heartbeats are not in the ledger.)"
    )
    return Told("lost", title, body)


def _allowed(facts: Facts, what: str) -> str:
    """The limit, and what it was made of."""
    text = f"{fact(facts.get('limit'))} s are allowed"
    if "median" not in facts:
        return f"{text} (its {what} were too few to learn from)"
    median, spread = fact(facts["median"]), fact(facts.get("spread"))
    return (
        f"{text} (from its own {what}: median {median} s + {SPREADS} * {spread} s of spread, "
        "within workers.lost and workers.longest)"
    )


def _back(decision: Decision, setting: Setting) -> Told:
    body = "It was heard again: it takes part again, with new blocks."
    return Told("back", f"back, {when(decision, setting)}", body)


def _left(decision: Decision, setting: Setting) -> Told:
    unable = (
        " It cannot train this job, and is not waited for." if decision.details["unable"] else ""
    )
    why = decision.reason.code
    return Told("left", f"left, {when(decision, setting)}", f"Its reason: {why}.{unable}")


def _granted(decision: Decision, setting: Setting) -> Told:
    details = decision.details
    shard = f"{count(details['size'])} samples, batch {details['batch']}"
    title = f"grant {details['grant']}, {when(decision, setting)}: {shard}"
    pool = details.get("pool", -1)
    body = "The next blocks of the walk" + (f" over pool {pool}" if pool >= 0 else "")
    return Told("granted", title, f"{body}, those given back first.")


def _returned(decision: Decision, setting: Setting) -> Told:
    grants = listed([str(number) for number in decision.details["grants"]])
    title = f"blocks given back, {when(decision, setting)}"
    return Told("blocks given back", title, f"Grants {grants}: {decision.reason.code}.")


def _resend(decision: Decision, setting: Setting) -> Told:
    first = decision.reason.facts.get("first")
    body = f"Its message {first} was missing, while later ones had come: it sends again from it on."
    return Told("asked again", f"asked to send again, {when(decision, setting)}", body)


SAY: dict[str, Say] = {
    "round": _round,
    "resized": resized,
    "kept": kept,
    "taken": _taken,
    "merged": _merged,
    "rejected": _rejected,
    "admitted": _admitted,
    "refused": _refused,
    "lost": _lost,
    "back": _back,
    "left": _left,
    "granted": _granted,
    "returned": _returned,
    "resend": _resend,
}
"""Kind -> its sentences; those about the run are in `why_run`."""
