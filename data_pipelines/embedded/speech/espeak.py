# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The eSpeak NG synthesiser, called through ctypes.

The library (GPL-3) comes inside the espeakng-loader wheel, is not part of this package and is
loaded at run time only.

It keeps state from one utterance to the next (phase, flutter, breath noise), which would make a
clip depend on the clips before it. Nothing in its interface resets all of that, espeak_Terminate
included, so each utterance is spoken by a freshly loaded library. That costs 5 ms.
"""

import _ctypes
import ctypes
import importlib.util
import os
import threading

import numpy as np

SAMPLE_RATE = 22_050  # Hz, what the synthesiser works at

# Constants of speak_lib.h.
_SYNCHRONOUS = 2
_DONT_EXIT = 0x8000  # return an error instead of ending the process
_POSITION_CHARACTER = 1
_CHARS_UTF8 = 1
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4

_LEVEL = 55  # of 200; at the default 100 some voices clip

_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)
_LOCK = threading.Lock()  # the library's state is the process's


def missing() -> str | None:
    """Returns None when the synthesiser is installed, else one sentence naming the extra."""
    if importlib.util.find_spec("espeakng_loader") is None:
        return (
            "embedded speech needs the eSpeak NG synthesiser (package espeakng-loader), which is "
            "not installed: pip install -e '.[demo]' in the checkout"
        )
    return None


def speak(
    text: str, *, voice: str, rate: int, pitch: int, pitch_range: int, seed: int
) -> np.ndarray:
    """Returns `text` spoken.

    Args:
        text: what to say; punctuation makes pauses.
        voice: language variant and voice variant, for example "en-us+f2".
        rate: words per minute, 80 to 450.
        pitch: 0 to 99, 50 is the voice's own.
        pitch_range: 0 to 99, intonation; 0 is monotone.
        seed: of the breath noise.

    Returns:
        [samples] int16 at SAMPLE_RATE.

    Raises:
        ValueError: the synthesiser does not know the voice.
        RuntimeError: it failed, or other code in this process holds the library loaded.
    """
    import espeakng_loader  # optional: see missing()

    pieces: list[np.ndarray] = []

    def collect(samples, count, events) -> int:
        if samples and count > 0:
            pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0

    callback = _CALLBACK(collect)
    with _LOCK:
        library = _load(espeakng_loader.get_library_path())
        try:
            data_path = str(espeakng_loader.get_data_path()).encode()
            if library.espeak_Initialize(_SYNCHRONOUS, 0, data_path, _DONT_EXIT) != SAMPLE_RATE:
                raise RuntimeError(
                    f"eSpeak NG could not start with its data at {data_path.decode()}"
                )
            library.espeak_SetSynthCallback(callback)
            _speak(
                library,
                text,
                voice,
                {_RATE: rate, _VOLUME: _LEVEL, _PITCH: pitch, _RANGE: pitch_range},
                seed,
            )
        finally:
            library.espeak_Terminate()
            _ctypes.dlclose(library._handle)
    if not pieces:
        raise RuntimeError(f"eSpeak NG gave no sound for {text!r} with voice {voice!r}")
    return np.concatenate(pieces)


def _load(path: str) -> ctypes.CDLL:
    try:
        held = ctypes.CDLL(path, mode=os.RTLD_NOLOAD)
    except OSError:
        return ctypes.CDLL(path)
    _ctypes.dlclose(held._handle)
    raise RuntimeError(
        f"embedded speech must load {path} afresh for every clip, or a clip would depend on those "
        "before it; other code in this process holds it loaded: make the corpus in its own process"
    )


def _speak(
    library: ctypes.CDLL, text: str, voice: str, parameters: dict[int, int], seed: int
) -> None:
    if library.espeak_SetVoiceByName(voice.encode()) != 0:
        raise ValueError(f"voice must be one that eSpeak NG knows, got {voice!r}")
    for parameter, value in parameters.items():
        library.espeak_SetParameter(parameter, value, 0)
    # Breath noise comes from two generators: the library's own and the C library's.
    library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
    ctypes.CDLL(None).srand(ctypes.c_uint(seed))
    encoded = text.encode() + b"\0"
    status = library.espeak_Synth(
        encoded, ctypes.c_size_t(len(encoded)), 0, _POSITION_CHARACTER, 0, _CHARS_UTF8, None, None
    )
    if status != 0:
        raise RuntimeError(f"eSpeak NG failed with status {status} on {text!r}")
