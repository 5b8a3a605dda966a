# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""A page on this machine to hear a tokenizer by.

Read `answers` first, what a run makes of sounds and texts; `app` is who may ask it what, and how;
`guard` refuses those whom the page did not send, `page` is what a browser shows, and `server` where
it is listened to.
"""
