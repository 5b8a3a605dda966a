# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A trained tokenizer in use: arrays, files and streams.

Read `tokenizer` first, all that a run can do; `codec`, `represent`, `transcribe` and `generate` do
it, on `frames`, `batched` or at other `rates`. `diffusion_transformer` makes whole sounds, when it is
evaluated. `files` does it with sound files, which
`sound_formats` writes, `latent_file` with what lies in an `npz`, and `latent_shards` with shards.
Of the program f3tok, `verbs` are what it does: with a run that `model_folder` finds, or one that is
`shipped`, and `start` begins soon with, with one input or many as `jobs` plans, through `pipes`, and
never over a file that is none of its `outputs`.
"""
