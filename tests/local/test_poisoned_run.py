"""A hostile worker sends every kind of poison: all of it is refused, counted and kept as evidence,
nothing of it is applied, and the run goes on to its end."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from crew import Crew
from hostile import Hostile, Model
from msgspec.structs import replace

from hermes.cli.entry import run as hermes
from hermes.messages import Heartbeat, Resent, Update
from hermes.policy import norm
from hermes.runtime.archive import fold_archive
from hermes.runtime.quarantine import read_quarantine
from hermes.values import Base, Birth, Position, Reason

JOB = """\
import hermes
from hermes import nn
job = hermes.Job(
    model=lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)),
    data=hermes.data.digits, optimizer=lambda params: nn.SGD(params, lr=0.1),
    loss=nn.CrossEntropy(), stop=hermes.Stop(samples=20_000))
"""


def first(model: Model) -> Any:
    return next(iter(model.values()))


def nan(model: Model) -> None:
    first(model).flat[0] = np.nan


def infinite(model: Model) -> None:
    first(model).flat[-1] = -np.inf


def shape(model: Model) -> None:
    model[next(iter(model))] = np.zeros((3, 3), np.float32)


def naming(model: Model) -> None:
    model["another"] = np.zeros(2, np.float32)


def dtype(model: Model) -> None:
    model[next(iter(model))] = first(model).astype(np.float64)


def huge(model: Model) -> None:
    first(model).flat[0] = 1e30


def far(model: Model, times: float) -> None:
    """Off by this norm."""
    first(model).flat[0] += times


OF_TENSORS: dict[str, tuple[Callable[[Model], None], str]] = {
    "NaN": (nan, "not-finite"),
    "infinite": (infinite, "not-finite"),
    "another shape": (shape, "wrong-shape"),
    "another name": (naming, "wrong-names"),
    "another type": (dtype, "wrong-dtype"),
    "absurd at the start": (huge, "absurd-norm"),
}

OF_CLAIMS: dict[str, tuple[Callable[[Update], Update], str]] = {
    "of no samples": (lambda u: replace(u, samples=0), "malformed"),
    "tensors that are not there": (
        lambda u: replace(u, payload=replace(u.payload, digest="0" * 64)),
        "unreadable",
    ),
    "of an unknown base": (lambda u: replace(u, base=replace(u.base, digest="x")), "unknown-base"),
    "from the future": (
        lambda u: replace(u, base=Base(u.base.version + 9, "x")),
        "from-the-future",
    ),
}


class Campaign:
    """All that one hostile worker does."""

    def __init__(self, crew: Crew) -> None:
        self.crew = crew
        self.answers: dict[str, Reason] = {}
        self.aside: dict[int, str] = {}
        """Offset of a record that no entry of the ledger answers, and the code it deserves."""
        self.over = False

    def __call__(self) -> None:
        self.worker = worker = Hostile(self.crew.log, "r", "evil")
        worker.knock("evil-1")
        for title, (change, _) in OF_TENSORS.items():
            self.answers[title] = worker.push(self.tensors(change))
        for title, (claim, _) in OF_CLAIMS.items():
            self.answers[title] = worker.push(self.claims(claim))
        while len(worker.ledger.state.norms) < norm.NEEDED:
            worker.push(self.tensors(nan))
        middle = norm.limit("auto", worker.ledger.state.norms, 0)
        assert middle is not None
        self.answers["absurd beside the others"] = worker.push(
            self.tensors(lambda model: far(model, 3 * middle.most))
        )
        self.repeat()
        self.come_back_from_the_dead()
        worker.bye()
        self.over = True

    def tensors(self, change: Callable[[Model], None]) -> Callable[[], Update]:
        worker = self.worker
        return lambda: worker.update(worker.send(worker.model(change)))

    def claims(self, claim: Callable[[Update], Update]) -> Callable[[], Update]:
        whole = self.tensors(lambda model: far(model, 1e-3))
        return lambda: claim(whole())

    def repeat(self) -> None:
        """A birth that was taken, under a new number, and one that is another's."""
        worker = self.worker
        sound = worker.send(worker.model(lambda model: far(model, 1e-3)))
        again = worker.update(sound, birth=Birth("evil-1", 1))
        stolen = worker.update(sound, birth=Birth("worker-1", 1))
        self.aside[worker.say(worker.round(again))] = "repeated-birth"
        self.aside[worker.say(Resent(again))] = "repeated-birth"
        self.aside[worker.say(Resent(stolen))] = "false-birth"
        # The very same message again is no news, and none of an offence.
        worker.say(Resent(stolen), sender="evil-1", number=worker.number)
        # Once this is answered, all before it has been read. Knocks come by a topic of their own:
        # a master that hears the next one first finds a fenced sender in all of the above.
        worker.push(self.tensors(nan))

    def come_back_from_the_dead(self) -> None:
        """A newer incarnation takes over, and the older one goes on; a third was never let in."""
        worker = self.worker
        last = worker.number
        sound = worker.send(worker.model(lambda model: far(model, 1e-3)))
        worker.knock("evil-2", previous="evil-1")
        fenced = worker.round(worker.update(sound, birth=Birth("evil-1", last + 1)))
        self.aside[worker.say(fenced, sender="evil-1", number=last + 1)] = "fenced-sender"
        worker.say(Heartbeat(1, last), sender="evil-1")
        self.aside[worker.say(fenced, sender="evil-9", number=1)] = "unknown-sender"


@pytest.fixture(scope="module")
def after(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """A run of one honest worker beside it; here a version waits for all."""
    crew = Crew(tmp_path_factory.mktemp("poisoned"), JOB, "fedavg")
    campaign = Campaign(crew)
    crew.see_through(1, campaign)
    assert campaign.over, crew.said()
    return campaign


def test_the_run_finishes_and_nothing_of_it_is_applied(after: Campaign) -> None:
    crew = after.crew
    assert crew.error is None
    assert crew.result["status"] == "finished"
    evil, honest = crew.result["workers"]["evil"], crew.result["workers"]["worker-1"]
    assert (evil["applied"], evil["samples"]) == (0, 0)
    assert evil["rejected"] == evil["pushes"] > len(OF_TENSORS) + len(OF_CLAIMS)
    assert honest["samples"] == crew.result["samples"] >= 20_000
    assert crew.result["accuracy"]["validation"] > 0.9


def test_each_is_rejected_with_its_reason(after: Campaign) -> None:
    wanted = {title: code for title, (_, code) in {**OF_TENSORS, **OF_CLAIMS}.items()}
    found = {title: reason.code for title, reason in after.answers.items()}
    assert found == {**wanted, "absurd beside the others": "absurd-norm"}
    facts = after.answers["absurd beside the others"].facts
    assert facts["norm"] > facts["limit"] == pytest.approx(norm.TIMES * facts["median"])  # type: ignore[operator]
    assert after.answers["absurd at the start"].facts["known"] < norm.NEEDED  # type: ignore[operator]


def test_each_is_kept_with_its_evidence(after: Campaign) -> None:
    kept = read_quarantine(after.crew.folder.quarantine, 10_000)
    by_birth = {a.update.number: a for a in kept.last if a.update and not a.digest}
    rejected = {reason.code for reason in after.answers.values()}
    assert {aside.code for aside in by_birth.values()} == rejected
    for aside in by_birth.values():
        assert aside.update is not None
        assert (aside.worker, aside.topic) == ("evil", "from.evil")
        assert (aside.update.incarnation, aside.update.payload_topic) == ("evil-1", "from.evil")
        assert aside.update.last == aside.offset
        assert len(aside.update.payload_digest) == 64
    records = {aside.offset: aside for aside in kept.last if aside.digest}
    assert {offset: aside.code for offset, aside in records.items()} == after.aside
    for aside in records.values():
        assert len(aside.digest) == 64
        assert aside.head


def test_all_of_it_is_counted_and_named(
    after: Campaign, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the result, in `hermes status`, and the same after a restart of the master."""
    from hermes.runtime.quarantine import Quarantine

    result, path = after.crew.result, after.crew.folder.quarantine
    kept = read_quarantine(path, 10_000)
    counts = Counter(aside.code for aside in kept.last)
    assert result["quarantined"] == kept.total == counts.total()
    assert result["quarantined_by_reason"] == kept.counts == counts
    assert counts["repeated-birth"] == 2
    again = Quarantine(path, lambda _: None)
    first = kept.last[0]
    again.add(Position(first.topic, 0, first.offset), "once more", code=first.code)
    assert (again.count, again.counts) == (kept.total, kept.counts)
    again.add(Position(first.topic, 1, first.offset), "of the next generation", code=first.code)
    assert again.count == kept.total + 1
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    out = str(after.crew.folder.path.parent.parent)
    capsys.readouterr()
    assert hermes(["status", "r", "--out", out, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)["quarantined"]
    assert (said["count"], said["by_reason"]) == (kept.total, dict(counts))
    assert said["path"] == str(path.absolute())
    assert hermes(["status", "r", "--out", out]) == 0
    shown = capsys.readouterr().out
    assert f"{kept.total} records; the last: " in shown
    assert f"{counts['fenced-sender']} fenced-sender" in shown
    assert str(path.absolute()) in shown


def test_why_says_each_rejection_again(after: Campaign, capsys: pytest.CaptureFixture[str]) -> None:
    """From the ledger's numbers; it finds no difference."""
    out = str(after.crew.folder.path.parent.parent)
    capsys.readouterr()
    assert hermes(["why", "evil", "--run", "r", "--out", out, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["differ"] == 0
    texts = [d["text"] for d in told["decisions"] if d["kind"] == "rejected"]
    assert any("times" in text and "the median of the last" in text for text in texts)
    assert any("the newest was" in text for text in texts)


def test_a_fold_of_the_ledger_has_the_same_norms(after: Campaign) -> None:
    """[11] What limits are made of is in the records, for whoever folds them next."""
    state = fold_archive(after.crew.folder.ledger).state
    assert len(state.norms) == norm.KEPT
    assert all(length > 0 for length in state.norms)
