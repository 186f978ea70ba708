"""Which topics are there, and are they as we want them? Created, deleted, looked up, compared.

Knows no client library: it asks an `Admin`, whose errors are ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from hermes.errors import BrokerRefused, NoSuchTopic
from hermes.transport.held import Held, read_log_dirs
from hermes.transport.patience import Patience
from hermes.transport.settings import TOPIC_CONFIG


class Facts(NamedTuple):
    """What a broker says of a topic."""

    there: bool
    usable: bool
    """It can be written and read: each partition has a leader."""
    partitions: int


class Admin(Protocol):
    """A connection that asks about topics, again while the broker is away (once only, if not
    `patient`). Its errors are `HermesError`s."""

    def create(self, topics: Iterable[str], config: Mapping[str, str]) -> None:
        """Have topics of one partition created; existing ones stay as they are."""
        ...

    def delete(self, topics: list[str]) -> None:
        """Have topics deleted; ones that are not there are no error."""
        ...

    def names(self, *, patient: bool = True) -> list[str]: ...

    def describe(self, topics: list[str], *, patient: bool = True) -> dict[str, Facts]:
        """What the broker says of each topic; asking creates nothing."""
        ...

    def configs(self, topics: list[str], keys: Iterable[str]) -> dict[str, dict[str, str]]:
        """The settings of each topic that are among `keys`, as far as the broker reports any."""
        ...

    def ends(self, topics: list[str]) -> dict[str, int]: ...

    def starts(self, topics: list[str]) -> dict[str, int]: ...

    def log_dirs(self, topics: list[str]) -> Iterable[Mapping[str, Any]]:
        """The answers to DescribeLogDirs (see `read_log_dirs`); one attempt."""
        ...

    def trim(self, topic: str, before: int) -> None: ...


class Topics:
    """The topics of one broker. Thread-safe."""

    def __init__(self, broker: str, admin: Admin, patience: Patience) -> None:
        """`broker` is HOST:PORT."""
        self._broker = broker
        self._admin = admin
        self._patience = patience
        self._known: set[str] = set()

    def create(self, topics: Iterable[str], config: Mapping[str, str] | None = None) -> None:
        """Create topics of one partition, with `TOPIC_CONFIG` and then `config`, and wait until
        they can be used; existing ones stay as they are (see `check`).

        Raises `BrokerRefused`, `BrokerUnreachable`.
        """
        wanted = list(topics)
        if not wanted:
            return
        self._admin.create(wanted, {**TOPIC_CONFIG, **(config or {})})
        done = f"create {', '.join(wanted)}"
        self._patience.wait_until(lambda: not self._unusable(wanted), done)
        self._known.update(wanted)

    def delete(self, topics: Iterable[str]) -> None:
        """Delete topics and wait until they are gone; ones that are not there are no error.

        Raises `BrokerRefused`, `BrokerUnreachable`.
        """
        names = list(topics)
        self._known.difference_update(names)
        if not names:
            return
        self._admin.delete(names)
        self._patience.wait_until(lambda: not self.present(names), f"delete {', '.join(names)}")

    def names(self, prefix: str) -> list[str]:
        """Those that begin with `prefix`, sorted. Raises `BrokerUnreachable`."""
        return sorted(name for name in self._admin.names() if name.startswith(prefix))

    def ends(self, topics: Iterable[str]) -> dict[str, int]:
        """The end of each topic, as the broker says. Raises `NoSuchTopic`, `BrokerUnreachable`."""
        names = list(dict.fromkeys(topics))
        if not names:
            return {}
        self.must_exist(names, afresh=True)
        return self._admin.ends(names)

    def starts(self, topics: Iterable[str]) -> dict[str, int]:
        """The first offset of each topic. Raises `NoSuchTopic`, `BrokerUnreachable`."""
        names = list(dict.fromkeys(topics))
        if not names:
            return {}
        self.must_exist(names, afresh=True)
        return self._admin.starts(names)

    def trim(self, topic: str, before: int) -> None:
        """Have the broker forget the records with offsets below `before`. Raises `NoSuchTopic`."""
        self.must_exist([topic], afresh=True)
        self._admin.trim(topic, before)

    def held(self, prefix: str) -> Held | None:
        """Bytes of the topics that begin with `prefix`, and the room on the broker's disk; None
        where it does not say, or not to us. One attempt. Raises `BrokerUnreachable`.
        """
        try:
            names = self._admin.names(patient=False)
            answers = self._admin.log_dirs([name for name in names if name.startswith(prefix)])
        except BrokerRefused:
            return None
        return read_log_dirs(answers, prefix)

    def check(self, topics: Iterable[str], config: Mapping[str, str] | None = None) -> None:
        """Compare the topics' settings, as far as the broker reports any, with `TOPIC_CONFIG` and
        `config`. Raises `BrokerRefused` for the first difference, `NoSuchTopic`.
        """
        wanted = {**TOPIC_CONFIG, **(config or {})}
        names = list(topics)
        self.must_exist(names, afresh=True)
        described = self._admin.describe(names)
        found = {topic: {"partitions": str(facts.partitions)} for topic, facts in described.items()}
        for topic, settings in self._admin.configs(names, wanted).items():
            found[topic].update(settings)
        for topic, settings in found.items():
            _compare(self._broker, topic, settings, {"partitions": "1", **wanted})

    def present(self, topics: list[str], *, patient: bool = True) -> list[str]:
        """Those of the topics that the broker has. Raises `BrokerUnreachable`."""
        found = self._admin.describe(topics, patient=patient)
        return [name for name, facts in found.items() if facts.there]

    def must_exist(self, topics: list[str], *, afresh: bool = False) -> None:
        """Raise `NoSuchTopic` for one that is not there; those seen are not looked up again,
        unless `afresh`."""
        asked = topics if afresh else [topic for topic in topics if topic not in self._known]
        if not asked:
            return
        present = set(self.present(asked))
        for topic in asked:
            if topic not in present:
                self._known.discard(topic)
                raise NoSuchTopic("there is no such topic", where=topic)
        self._known.update(asked)

    def forget(self, topic: str) -> None:
        """It may be gone: look it up the next time."""
        self._known.discard(topic)

    def _unusable(self, topics: list[str]) -> list[str]:
        found = self._admin.describe(topics)
        return [name for name in topics if name not in found or not found[name].usable]


def _compare(broker: str, topic: str, found: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    """Raise `BrokerRefused` for a topic whose settings, as far as they are known, are others."""
    other = {key: value for key, value in wanted.items() if found.get(key, value) != value}
    if not other:
        return
    told = "; ".join(f"{key}={found[key]} (wanted: {key}={value})" for key, value in other.items())
    changes = ",".join(f"{key}={value}" for key, value in other.items())
    tool = f"kafka-configs.sh --bootstrap-server {broker} --alter --topic {topic} --add-config "
    remedy = f"Use another run id (--run), or set it: {tool}{changes}"
    if "partitions" in other:
        remedy = "Use another run id (--run), or delete the topic, if nobody needs it: "
        remedy += f"kafka-topics.sh --bootstrap-server {broker} --delete --topic {topic}"
    raise BrokerRefused(
        f"the topic exists already, with other settings than a run needs: {told}",
        where=topic,
        remedy=remedy,
    )
