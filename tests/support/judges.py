# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Judges that hear little and at once, and one that is never there."""

import numpy as np

from f3tok_jax.evaluation.judges import judge


class Loudness(judge.Judge):
    """Hears the peak, in steps of a hundredth; and how far it is from another."""

    name = "loudness"
    package = judge.Package(name="numpy", install="pip install numpy", licence="BSD")
    figures = {
        "peak": judge.metric("peak", higher=True, explanation="."),
        "distance": judge.metric("distance", "dB", higher=False, explanation="."),
        "words": judge.metric("words", higher=False, explanation="."),
    }
    comparing = frozenset({"distance"})

    def _hear(self, sound):
        judge.check_loud(sound)
        return round(float(np.abs(sound).max()), 2)

    def verdict(self, heard, *, reference=None, text="", language=""):
        values = {"peak": heard}
        if reference is not None:
            values["distance"] = abs(heard - reference)
        if not text:
            return judge.Verdict(values, {"words": f"no text in {language}"})
        return judge.Verdict(values | {"words": heard}, {}, {"words": len(text.split())})


class Voice(Loudness):
    """The same of what may be another recording of one voice."""

    name, is_of_speakers = "voice", True


class Absent(Loudness):
    """Whose package is not there."""

    name = "absent"
    package = judge.Package(name="no-such-package", install="pip install it", licence="none")
