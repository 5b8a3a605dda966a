# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Files of torch.save: the tensors that PyTorch finds in them, and nothing that they would do."""

import collections
import io
import os
import pathlib
import pickle
import zipfile

import numpy as np
import pytest

from f3tok_jax.pretrained import torch_file


def _saved(path: pathlib.Path, is_archive: bool) -> dict:
    torch = pytest.importorskip("torch")
    whole = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    tensors = collections.OrderedDict(
        whole=whole,
        part=whole.T[1:3],  # of the same storage, neither from its beginning nor in its order
        scalar=torch.tensor(7, dtype=torch.int64),
        half=torch.tensor([0.5, -2.0], dtype=torch.float16),
        flags=torch.tensor([True, False]),
        weight=torch.nn.Parameter(torch.ones(2, 3)),
        none=torch.zeros(0, 5),
    )
    content = {"state": tensors, "step": 3, "others": [1.5, None, "text", (1, 2, 3, 4)]}
    torch.save(content, path, _use_new_zipfile_serialization=is_archive)
    return {name: tensor.detach().numpy() for name, tensor in tensors.items()}


@pytest.mark.parametrize("is_archive", [True, False])
def test_tensors_are_those_of_torch(tmp_path, is_archive):
    path = tmp_path / "weights.pt"
    wanted = _saved(path, is_archive)
    found = torch_file.read(path, below="state")
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
    assert {f"state/{name}" for name in wanted} == torch_file.read(path).keys()


class _Deed:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("is_archive", [True, False])
def test_a_program_in_a_file_is_not_obeyed(tmp_path, is_archive):
    path, folder = tmp_path / "weights.pt", tmp_path / "made"
    program = pickle.dumps({"state": _Deed(folder)}, protocol=2)
    if is_archive:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", program)
    else:
        head = [pickle.dumps(value, protocol=2) for value in (0x1950A86A20F9469CFC6C, 1001, {})]
        path.write_bytes(b"".join([*head, program, pickle.dumps([], protocol=2)]))
    with pytest.raises(ValueError, match="it has no tensors"):
        torch_file.read(path)
    assert not folder.exists()
    pickle.loads(program)  # as it would have been
    assert folder.exists()


def test_what_is_damaged_is_refused_in_one_sentence(tmp_path):
    path = tmp_path / "weights.pt"
    _saved(path, False)
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for cut in (0, 1, 10, len(whole) // 2, len(whole) - 300):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match="must be a whole file of torch.save"):
            torch_file.read(path)
    for _ in range(200):
        changed = bytearray(whole)
        for place in rng.integers(0, len(whole), 3):
            changed[place] = rng.integers(256)
        path.write_bytes(changed)
        try:
            torch_file.read(path)
        except ValueError as error:
            assert str(path) in str(error)
    with pytest.raises(ValueError, match="there is no"):
        torch_file.read(tmp_path / "nothing.pt")
    with pytest.raises(ValueError, match="with 'other'"):
        _saved(path, True)
        torch_file.read(path, below="other")


def test_a_tensor_beyond_its_numbers_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "weights.pt"
    torch.save({"a": torch.arange(4, dtype=torch.float32)}, path)
    buffer = io.BytesIO()
    with zipfile.ZipFile(path) as read, zipfile.ZipFile(buffer, "w") as write:
        for name in read.namelist():
            content = read.read(name)
            write.writestr(name, content[:8] if name.endswith("data/0") else content)
    path.write_bytes(buffer.getvalue())
    with pytest.raises(ValueError, match="lies beyond its 2 numbers"):
        torch_file.read(path)
