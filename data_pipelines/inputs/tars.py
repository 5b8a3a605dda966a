# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""What a tar holds and where, if all of it is there."""

from collections.abc import Iterator
import os
import tarfile

_COMPRESSIONS = {  # first bytes -> what undoes it
    b"\x1f\x8b": "gunzip",
    b"BZh": "bunzip2",
    b"\xfd7zXZ": "unxz",
    b"\x28\xb5\x2f\xfd": "unzstd",
}
_END = bytes(tarfile.BLOCKSIZE)  # a block of zeros ends a tar


def members(path: str) -> Iterator[tarfile.TarInfo]:
    """Yields every member of a tar; `offset_data` and `size` say where its bytes lie.

    Raises:
        ValueError: if the tar is compressed, none, damaged, cut short, or goes on behind its end;
            some of these only after the last member.
    """
    with open(path, "rb") as file:
        head = file.read(8)
        for start, tool in _COMPRESSIONS.items():
            if head.startswith(start):
                raise ValueError(
                    f"{path} must be a plain tar, whose sounds can be read where they lie, got a "
                    f"compressed one: undo it by {tool} {path}"
                )
        file.seek(0)
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                while (member := tar.next()) is not None:
                    tar.members.clear()  # It would keep a million of them.
                    yield member
                end = tar.offset
        except tarfile.ReadError as error:
            cut = "unexpected end" in str(error)
            raise ValueError(_damaged(path, "it is cut short" if cut else str(error))) from None
        except (tarfile.TarError, ValueError, OSError, EOFError) as error:
            raise ValueError(_damaged(path, f"{type(error).__name__}: {error}")) from None
        file.seek(end)
        _check_end(path, file)


def _check_end(path: str, file) -> None:
    """Looks at what follows the last member, where a reader of tars stops without a word."""
    start = file.tell()
    block = file.read(len(_END))
    if len(block) < len(_END):
        raise ValueError(_damaged(path, "it has no end mark, so it is cut short"))
    if block != _END:
        raise ValueError(_damaged(path, f"what stands at byte {start} is no header"))
    while block := file.read(2**20):
        if block.count(0) < len(block):
            raise ValueError(
                f"{path} must end at its end mark, got more behind it (byte {start}), as where "
                "tars were joined by cat: give the parts, or unpack it by tar -xif and pack it again"
            )


def _damaged(path: str, why: str) -> str:
    return f"{path} must be a whole tar, got one that is damaged: {why}; copy it or pack it again"


def special(member: tarfile.TarInfo) -> str:
    """What a member is if it is no visible file: "folder", "hidden", "link", "sparse" or "device"."""
    if member.isdir():
        return "folder"
    # The shadows that macOS leaves, and headers that an old tar took for files.
    parts = [part for part in member.name.split("/") if part not in ("", ".")]
    if any(part.startswith((".", "__MACOSX", "PaxHeader")) for part in parts):
        return "hidden"
    if member.issym() or member.islnk():
        return "link"
    if not member.isfile():
        return "device"
    return "sparse" if member.issparse() else ""


def name(member: tarfile.TarInfo) -> str:
    """The path of a member without "./", bytes that are no text being escaped."""
    return os.fsencode(member.name.removeprefix("./")).decode("utf-8", "backslashreplace")
