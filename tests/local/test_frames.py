"""Are responses of a broker taken in as the client library does it, with fewer copies?"""

from __future__ import annotations

import warnings

from hypothesis import given
from hypothesis import strategies as st

import hermes.transport.kafka  # noqa: F401  (puts our frames in)

with warnings.catch_warnings():  # of its own use of importlib
    warnings.simplefilter("ignore", DeprecationWarning)
    from kafka.protocol import frame
    from kafka.protocol import parser as protocol_parser


@given(st.lists(st.binary(max_size=40), max_size=6), st.lists(st.integers(0, 60), max_size=6))
def test_a_response_is_written_and_read_as_by_the_library(
    parts: list[bytes], reads: list[int]
) -> None:
    size = sum(map(len, parts))
    theirs, ours = frame.KafkaBytes(size), protocol_parser.KafkaBytes(size)
    for part in parts:
        theirs.write(part)
        ours.write(part)
    assert (bytes(ours), ours.tell()) == (bytes(theirs), theirs.tell())
    theirs.seek(0)
    ours.seek(0)
    for count in reads:
        assert ours.read(count) == theirs.read(count)
    assert (ours.read(), ours.tell()) == (theirs.read(), theirs.tell())


def test_the_parser_makes_our_frames() -> None:
    """Should a release of the library make them by another name, this says so."""
    assert type(protocol_parser.KafkaProtocol()._header) is protocol_parser.KafkaBytes
    assert protocol_parser.KafkaBytes is not frame.KafkaBytes
