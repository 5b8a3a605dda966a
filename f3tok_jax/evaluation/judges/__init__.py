# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Published judges of sound, each optional, each by the version of the package with its weights.

Read judge first, what all have in common, then any judge, and panel, which has them hear the rows of
an evaluation: intelligibility, naturalness and distilled_mos, speaker_similarity, voice_activity,
pitch. Weights are read out of packages, at run time; the packages themselves, most of which bring
PyTorch, librosa and numba, are not imported.
"""
