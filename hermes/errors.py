"""What can go wrong, whose fault it is, and the exit code that says so.

HermesError                      1
├── UsageError                   2   what the user typed, or wrote in a file
│   ├── SettingError             2   an unknown or ill-typed setting
│   ├── JobError                 2   the user's job file
│   ├── RunError                 2   a run that is unknown, ambiguous, or not in a fit state
│   └── Unverified               2   a signature that does not hold: another cluster key
├── BrokerError                  3   the broker, or the way to it
│   ├── BrokerUnreachable        3   nothing answers, or what answers is not Kafka
│   ├── BrokerRefused            3   it answers and says no
│   │   └── NotAllowed           3   a right is missing, as of somebody who was revoked
│   ├── OutcomeUnknown           3   an append may or may not have happened (retriable)
│   └── NoSuchTopic              3   a topic that should be there is not
├── RunEnded                     4   the run ended short
│   ├── Fenced                   4   another master has taken over
│   └── RunFailed                4
├── CheckFailed                  5   a check found a mismatch
│   └── NodeError                5   a device of the cluster that cannot be reached or used
├── PeerError                    1   bytes or claims of a peer that we do not accept
│   ├── DecodeError              1   bytes that are not a message of ours
│   │   └── ForeignCodec         1   tensors under another codec than their message says
│   └── DigestMismatch           1   a transfer whose bytes are not those announced
└── Defect                       1   ours: an invariant is broken
"""

from __future__ import annotations

import errno


class HermesError(Exception):
    """The root. `what` happened, `where`, and the `remedy`: what to do about it."""

    exit_code = 1
    retriable = False

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        self.what, self.where, self.remedy = what, where, remedy
        super().__init__(what, where, remedy)

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        advice = f"\n  {self.remedy}" if self.remedy else ""
        return f"{place}{self.what}{advice}"


class UsageError(HermesError):
    """What the user typed or wrote is not usable."""

    exit_code = 2


class SettingError(UsageError):
    """A setting that is unknown, ill-typed or out of range."""


class JobError(UsageError):
    """The user's job file is missing, raises, or does not fit together."""


class RunError(UsageError):
    """A run that is unknown, ambiguous or not in a fit state for the command."""


class Unverified(UsageError):
    """A signature that does not hold: this machine has another cluster key, or it was forged."""


class BrokerError(HermesError):
    """The broker, or the way to it."""

    exit_code = 3


class BrokerUnreachable(BrokerError):
    """Nothing answers at the address, or what answers is not Kafka."""

    retriable = True


class BrokerRefused(BrokerError):
    """The broker answered and said no."""


class NotAllowed(BrokerRefused):
    """The broker does not let us: a right, or this user, is not there, or was taken."""


class OutcomeUnknown(BrokerError):
    """An append may or may not have happened: append the same bytes again, or read back."""

    retriable = True


class NoSuchTopic(BrokerError):
    """A topic that should be there is not."""


class RunEnded(HermesError):
    """The run ended short."""

    exit_code = 4


class Fenced(RunEnded):
    """Another master has taken over this run."""


class RunFailed(RunEnded):
    """The run cannot go on."""


class CheckFailed(HermesError):
    """A check found a mismatch."""

    exit_code = 5


class NodeError(CheckFailed):
    """A device of the cluster that cannot be reached, or is not fit for what is asked of it."""


class PeerError(HermesError):
    """Bytes or claims of a peer that we do not accept."""


class DecodeError(PeerError):
    """Bytes that are not a message of ours."""


class ForeignCodec(DecodeError):
    """Tensors under another codec than their message says."""

    def __init__(self, found: str, wanted: str) -> None:
        super().__init__(f"tensors under the codec {found}; their message says {wanted}")
        self.found, self.wanted = found, wanted


class DigestMismatch(PeerError):
    """A transfer whose bytes are not those announced."""


class Defect(HermesError):
    """Ours: an invariant is broken. Carries the story of what led there."""


REFUSED = {
    errno.ENOSPC: "Make room there.",
    errno.EDQUOT: "Make room within your quota.",
    errno.EROFS: "It is mounted read-only: choose another place (--out, --state, --cache, TMPDIR).",
    errno.EACCES: "Make it writable, or choose another place (--out, --state, --cache, TMPDIR).",
    errno.EPERM: "Make it writable, or choose another place (--out, --state, --cache, TMPDIR).",
    errno.EMFILE: "Allow more open files: ulimit -n 4096",
    errno.ENFILE: "Too many files are open on this machine: end some programs.",
    errno.ENOMEM: "Free some memory: end some programs, or start fewer workers.",
    errno.EAGAIN: "Allow more processes (ulimit -u), or start fewer workers.",
}
"""What a machine may refuse, and what to do: no defect of ours."""


def of_the_machine(error: BaseException) -> RunFailed | None:
    """A full disk and the like, where nobody nearer has words for it; None for any other error."""
    if not isinstance(error, OSError) or error.errno not in REFUSED:
        return None
    return RunFailed(
        f"this machine refuses: {error.strerror or error}",
        where=str(error.filename) if error.filename else "",
        remedy=REFUSED[error.errno],
    )
