# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Files of text that others wrote, read as what they are or refused by line."""

import codecs
import os

from data_pipelines.records import git_lfs

# The mark of UTF-32 begins with that of UTF-16.
_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read(path: str | os.PathLike) -> str:
    """Returns the text of a file in UTF-8, or in what its byte order mark says, without the mark.

    Lines end with "\\n" or "\\r\\n", as in the file; the lone "\\r" of old machines becomes "\\n".

    Raises:
        ValueError: naming the line, if it is in another encoding or no text at all.
    """
    git_lfs.refuse(path)
    with open(path, "rb") as file:
        data = file.read()
    encoding = next((_MARKS[mark] for mark in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data[: error.start].decode(encoding, "replace").count("\n") + 1
        raise ValueError(
            f"{path}, line {line}, must be in UTF-8 or have a byte order mark, got bytes of another "
            f"encoding: convert it, as by iconv -f LATIN1 -t UTF-8 {path} > NEW"
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ValueError(
            f"{path}, line {line}, must be text, got a zero byte: if it is UTF-16 without a mark, "
            f"convert it, as by iconv -f UTF-16LE -t UTF-8 {path} > NEW; a spreadsheet or Parquet "
            "is to be exported as CSV or JSON lines"
        )
    return text if "\n" in text else text.replace("\r", "\n")
