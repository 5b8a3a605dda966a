# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Why sound cannot be used: a reason that is counted, and a detail for people."""

# Why sound is refused, as manifests and refusals.jsonl spell it.
REASONS = {
    "empty": "the file has no bytes",
    "not_sound": "text, zeros, an archive or something else that is no sound",
    "git_lfs": "a Git LFS pointer in place of the file",
    "unsupported": "a format, rate or number of channels that is not read",
    "truncated": "its end is missing",
    "damaged": "its bytes contradict each other",
    "several_streams": "streams in it that do not fit together",
    "undecodable": "not known as sound, or not decoded",
    "unreadable": "the operating system would not give the file",
    "no_samples": "a header without samples",
    "not_finite": "NaN or infinite samples",
    "out_of_range": "most samples lie beyond full scale, or one far beyond",
    "silent": "every sample is the same",
    "clipped": "more clipped samples than max_clipped",
    "quiet": "below min_rms_db",
    "dc_offset": "further from zero than max_dc",
    "narrow": "a bandwidth below min_bandwidth",
    "mix_loss": "its channels cancel each other, more than max_mix_loss_db",
    "too_short": "shorter than min_seconds",
    "too_long": "longer than max_seconds by its header or while it was read",
    "ambiguous": "one of several sounds of which one is wanted",
    "bad_text": "texts or labels beside it that cannot be read or contradict each other",
    "duplicate": "the other part has the same samples in another file",
    "crashed": "the decoder took the worker process with it",
}

# Sound that stands before what is wrong can be kept.
KEEPABLE = ("truncated", "damaged", "several_streams")


class Refused(Exception):
    """Sound that cannot be used; `reason` is a key of REASONS, `detail` one clause for people."""

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
