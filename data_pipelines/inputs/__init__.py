# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What shards are built from, and the ways in which people keep sound and its texts.

Read `listing` first, what all inputs offer, then the inputs, each behind what only it needs:

    entries, table_paths       what lies in a folder: sounds, tables, everything else
    text_files, delimited, json_objects, columns
                               what a table is: its text, its cells, the names of its columns
    tables, sidecars           rows, each with the name of a sound; of tables, of one file per sound
    matching, joining          the sound that a name means; what becomes of all rows and sounds
    folders                    an input
    shard_files, tars          a few large files, and what lies in a tar
    webdataset, parquet        two inputs
    tfds, embedded             two inputs
    debian/                    an input: packages of apt; the catalogue of what they hold; utterances,
                               dialogs and stamps, which have the texts, and doubts of these; recordings
"""
