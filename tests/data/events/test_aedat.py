"""AEDAT 3.1, packet by packet; version 2.0 is in test_cifar10_dvs.py."""

import pytest
from hypothesis import given

from seenn_jax.data.events import aedat
from seenn_jax.data.events.dvs128_gesture import KIND
from seenn_jax.data.events.recordings import Unreadable
from seenn_jax.errors import UserError
from tests.data.made_events import HEADER, aedat3, packet, read_back, recordings

SOME = [(3, 0, True, 5), (127, 64, False, 70), (0, 127, True, 70)]


def read(path, content):
    path.write_bytes(content)
    return aedat.read_3_1(path, KIND)


def test_events_of_several_packets(tmp_path):
    content = aedat3(
        packet([(0, 0, 0, 0)], kind=0),  # of another type
        packet(SOME[:2], spare=3),
        packet([(9, 9, 1, 80)], valid=False),
        packet(SOME[2:], overflow=1),
    )
    later = (*SOME[2][:3], 70 + 2**31)
    assert read_back(read(tmp_path / "a.aedat", content)) == [*SOME[:2], later]


@given(recordings(128, 128))
def test_events_come_back(tmp_path_factory, events):
    path = tmp_path_factory.getbasetemp() / "any3.aedat"
    assert read_back(read(path, aedat3(packet(events[:5]), packet(events[5:])))) == events


def test_tonic_reads_the_same(tmp_path):
    tonic = pytest.importorskip("tonic.io")
    content = aedat3(packet(SOME))
    read(tmp_path / "a.aedat", content)
    theirs = tonic.get_aer_events_from_file(tmp_path / "a.aedat", 3.1, len(HEADER))
    address = theirs["address"]
    found = [(a >> 17, a >> 2 & 0x1FFF, bool(a >> 1 & 1)) for a in address.tolist()]
    assert found == [event[:3] for event in SOME]


WHOLE = aedat3(packet(SOME))
DAMAGED = {
    "cut in an event": (WHOLE[:-3], "it ends in a packet of 3 events"),
    "cut in a packet's header": (aedat3(packet(SOME), packet(SOME)[:20]), "packet's header"),
    "cut in its header": (HEADER[:40], "cut in its header"),
    "a header that can't be": (aedat3(b"\xff" * 28), "header that can't be"),
    "empty": (b"", r"#!AER-DAT3\.1"),
    "without events": (HEADER, "no events"),
    "off the sensor of the right camera": (
        aedat3(packet([(200, 150, 1, 0)])),
        "x = 200, y = 150, and the sensor of DVS128 Gesture has 128 x 128",
    ),
    "a bit is wrong": (aedat3(packet(SOME * 100 + [(128, 0, 1, 9)])), "x = 128, y = 0"),
}
OTHERS = {
    "of version 2": (b"#!AER-DAT2.0\r\n" + bytes(16), r"is AEDAT 2\.0.*AEDAT 3\.1 is read"),
    "of version 4": (b"#!AER-DAT4.0\r\n" + bytes(16), r"is AEDAT 4\.0"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(16), "is an HDF5 file"),
    "packed": (b"\x1f\x8b" + bytes(16), "is a gzip archive.*extracted"),
    "packed otherwise": (b"7z\xbc\xaf\x27\x1c" + bytes(16), "is a 7z archive.*extracted"),
    "a page": (b"<!DOCTYPE html>\n<p>", "is a page of the web"),
    "of a larger sensor": (
        aedat3(packet([(200, 150, 1, 0)]), header=HEADER.replace(b"DVS128", b"DAVIS346")),
        r"is of another camera \(DAVIS346\): .*x = 200, y = 150.*128 x 128",
    ),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damage_is_named(tmp_path, kind):
    content, why = DAMAGED[kind]
    with pytest.raises(Unreadable, match=rf"a\.aedat is corrupt: .*{why}.*skip_corrupt"):
        read(tmp_path / "a.aedat", content)


@pytest.mark.parametrize("kind", OTHERS)
def test_another_format_or_camera_is_named_as_that(tmp_path, kind):
    content, what = OTHERS[kind]
    with pytest.raises(UserError, match=rf"a\.aedat {what}") as caught:
        read(tmp_path / "a.aedat", content)
    assert not isinstance(caught.value, Unreadable)
    assert "corrupt" not in str(caught.value)
