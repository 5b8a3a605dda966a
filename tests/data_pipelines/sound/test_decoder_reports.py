# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What libmpg123 says on the console is heard, and nobody else's lines are."""

import io
import os

import numpy as np
import pytest

from data_pipelines.sound import audio_files
from data_pipelines.sound import decoder_reports
from data_pipelines.sound import refusals
from tests.support import containers

_ERROR = b"[src/libmpg123/layer3.c:INT123_do_layer3():1801] error: dequantization failed!\n"


def _heard(*lines: bytes) -> str | None:
    reports = decoder_reports.Reports()
    with reports.heard():
        for line in lines:
            os.write(2, line)
    reports.close()
    return reports.damage


def test_a_report_of_damage_is_kept_and_not_printed(capfd):
    assert _heard(b"\n", _ERROR, b"Note: Trying to resync...\n") == "dequantization failed!"
    assert capfd.readouterr().err == ""


def test_lines_of_others_are_passed_on(capfd):
    assert (
        _heard(b"of another thread\n", b"Warning: Xing stream size off by more than 1%\n") is None
    )
    assert capfd.readouterr().err == "of another thread\n"


@pytest.mark.parametrize("frame, is_damage", [(0, False), (3, False), (200, True)])
def test_only_first_frames_may_lack_what_they_refer_to(frame, is_damage):
    line = b"Note: missing 12 bytes in bit reservoir for frame %d\n" % frame
    assert bool(_heard(line)) == is_damage


def test_the_console_is_given_back(capfd):
    reports = decoder_reports.Reports()
    with pytest.raises(ValueError), reports.heard():
        raise ValueError
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


def test_a_closed_console_is_none_to_hear():
    console = os.dup(2)
    os.close(2)
    try:
        reports = decoder_reports.Reports()
        reports.close()
        reports = decoder_reports.Reports()
        # The place itself may have taken the number: then there is a console after all.
        with reports.heard():
            pass
    finally:
        os.dup2(console, 2)
        os.close(console)


def test_damage_inside_frames_is_refused_with_what_the_decoder_says(capfd):
    noise = containers.noise(np.random.default_rng(0), 30_000, 1)
    content = containers.mp3(noise, 44_100, "CONSTANT")
    said = set()
    for place in range(1_000, len(content) - 1_000, 997):
        damaged = bytearray(content)
        damaged[place : place + 40] = bytes(40)
        try:
            with audio_files.opened(io.BytesIO(bytes(damaged))) as sound:
                assert sum(map(len, sound.blocks)) == 30_000
        except refusals.Refused as refusal:
            assert refusal.reason == "damaged"
            said.add(refusal.detail)
    assert any("dequantization failed" in detail for detail in said)
    assert capfd.readouterr().err == ""
