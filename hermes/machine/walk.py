"""Which blocks come next? The endless walk 0..B-1, 0..B-1, ... over the train split. Pure.

Blocks are counted on, pass after pass: index k of the walk is block k mod B. What was returned
comes first; a grant is exclusively its worker's until it is finished or returned (protocol 9a).
Where the data is divided, a worker walks over its own pool's blocks alone (`machine.pools`); where
it brings its data, over its own samples: pass p of them in an order of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from hermes.machine.pools import after, block_samples
from hermes.machine.state import MasterState, Member
from hermes.messages import BlocksGranted
from hermes.values import BlockRange


def outstanding(member: Member) -> int:
    """Samples that the worker holds and has not finished."""
    return sum([grant.size for grant in member.grants])


def next_grant(
    state: MasterState, worker: str, returned: Sequence[BlockRange], cursor: int
) -> BlocksGranted:
    """The next grant of this worker: as many blocks as hold its size, out of the returned ones
    first, then along the walk from `cursor` on."""
    assert state.data is not None
    member = state.members[worker]
    if member.own is not None:
        return BlocksGranted(
            worker, member.next_grant, (), member.size, member.batch, member.walked
        )
    ranges: list[BlockRange] = []
    have = 0
    back = list(returned)
    while have < member.size:
        if back:
            index = back[0].first
            rest = BlockRange(index + 1, back[0].last)
            back[:1] = [rest] if rest.first < rest.last else []
        else:
            index, cursor = cursor, after(state.data, cursor)
        if ranges and ranges[-1].last == index:
            ranges[-1] = BlockRange(ranges[-1].first, index + 1)
        else:
            ranges.append(BlockRange(index, index + 1))
        have += block_samples(state.data, index)
    return BlocksGranted(
        worker, member.next_grant, tuple(ranges), min(member.size, have), member.batch
    )
