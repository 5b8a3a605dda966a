# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C while a decoder calls for bytes: heard afterwards, and no damage."""

import io
import os
import signal

import numpy as np
import pytest

from data_pipelines.sound import audio_files
from data_pipelines.sound import interrupts
from tests.support import containers


class _Interrupted(io.BytesIO):
    """Is interrupted at its last bytes, as often as they are read."""

    def readinto(self, buffer) -> int:
        count = super().readinto(buffer)
        if self.tell() == len(self.getbuffer()):
            os.kill(os.getpid(), signal.SIGINT)
        return count


def test_ctrl_c_while_sound_is_decoded_is_no_damage():
    sound = containers.noise(np.random.default_rng(0), 200_000, 1)
    content = containers.encoded(sound, 16_000, "FLAC", "PCM_16")
    with pytest.raises(KeyboardInterrupt):
        with audio_files.opened(_Interrupted(content)) as opened:
            for _ in opened.blocks:
                pass
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler


def test_ctrl_c_waits_and_is_heard_once():
    done = []
    with pytest.raises(KeyboardInterrupt):
        with interrupts.held():
            for _ in range(3):
                os.kill(os.getpid(), signal.SIGINT)
            done.append(True)
    assert done
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interrupts.held():
        os.kill(os.getpid(), signal.SIGINT)
    signal.signal(signal.SIGINT, before)
