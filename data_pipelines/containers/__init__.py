# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Containers of sound, walked without decoding: whole, truncated, damaged, one stream or several.

Read `walk` first, which chooses one by the first bytes, and `streams`, what all of them answer.
Then `content` and `tags`, with which all read; `samples`, for `riff` (WAV) and `headers` (AIFF, AU,
CAF, SPHERE); `flac`, `ogg` and `mpeg`, which have frames; and `foreign`, what none of them is.
"""
