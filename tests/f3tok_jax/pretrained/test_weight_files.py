# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""Files of weights: the index is obeyed, and what is no whole float tensor is refused by name."""

import json
import struct

import ml_dtypes
import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from f3tok_jax.pretrained import weight_files
from f3tok_jax.runs import language_model_folder

_ONE, _TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
_POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1192135096\n"


def _array(value, dtype=np.float32):
    return np.full((2, 3), value, dtype)


def _write(folder, files, weight_map=None):
    """Writes file -> tensor -> array, and the index unless there is none."""
    for name, tensors in files.items():
        safetensors_numpy.save_file(tensors, folder / name)
    if weight_map:
        content = json.dumps({"weight_map": weight_map})
        (folder / language_model_folder.INDEX_NAME).write_text(content)
    return folder


def _write_single(folder, **tensors):
    return _write(folder, {language_model_folder.SINGLE_NAME: tensors})


def _write_raw(path, dtype, num_bytes, data):
    """A file with the tensor "x" [2, 3] in any dtype."""
    entry = {"dtype": dtype, "shape": [2, 3], "data_offsets": [0, num_bytes]}
    header = json.dumps({"x": entry}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)


def _read(folder, dtype=np.float32):
    """Tensor -> value, of folders whose tensors have one each."""
    with weight_files.WeightFiles(folder) as files:
        files.check(dict.fromkeys(files.names, (2, 3)))
        read = {name: files.part(name, (slice(1), slice(None)), dtype) for name in files.names}
    return {name: float(array[0, 0]) for name, array in read.items()}


@pytest.mark.parametrize("right,wrong", [(_ONE, _TWO), (_TWO, _ONE)])
def test_the_index_says_which_file_a_tensor_comes_from(tmp_path, right, wrong):
    files = {
        right: {"x": _array(1), "y": _array(2)},
        wrong: {"x": _array(9), "z": _array(3)},
    }
    _write(tmp_path, files, {"x": right, "y": right, "z": wrong})
    assert _read(tmp_path) == {"x": 1, "y": 2, "z": 3}


def test_an_index_that_is_not_of_its_files_is_refused(tmp_path):
    files = {_ONE: {"x": _array(1)}, _TWO: {"z": _array(3)}}
    _write(tmp_path, files, {"x": _ONE, "y": _TWO, "z": _TWO})
    message = f"{_TWO} must hold the tensors that .*index.json assigns to it, it lacks y: copy"
    with pytest.raises(ValueError, match=message):
        _read(tmp_path)
    files[_TWO] |= {"y": _array(2), "more": _array(4)}
    _write(tmp_path, files)
    message = f"index.json must name every tensor of its files, got none for more in {_TWO}: copy"
    with pytest.raises(ValueError, match=message):
        _read(tmp_path)


@pytest.mark.parametrize("name", ["../x", "/x", "below/x", "..", ".", "", 3, None, ["x"]])
def test_an_index_stays_in_its_folder(tmp_path, name):
    _write(tmp_path, {_ONE: {"x": _array(1)}}, {"x": name, "y": _ONE})
    with pytest.raises(ValueError, match="index.json must name files in its folder, got"):
        _read(tmp_path)


@pytest.mark.parametrize("content", ["{}", '{"weight_map": []}', '{"weight_map": {}}'])
def test_an_index_without_tensors_is_refused(tmp_path, content):
    _write_single(tmp_path, x=_array(1))
    (tmp_path / language_model_folder.INDEX_NAME).write_text(content)
    with pytest.raises(ValueError, match="index.json must have a weight_map"):
        _read(tmp_path)


def test_two_layouts_with_one_content_are_one(tmp_path):
    tensors = {"x": _array(1), "y": _array(2, ml_dtypes.bfloat16)}
    _write_single(tmp_path, **tensors)
    _write(tmp_path, {_ONE: tensors}, dict.fromkeys(tensors, _ONE))
    assert _read(tmp_path) == {"x": 1, "y": 2}
    # An index of the single file is no second layout.
    _write(tmp_path, {}, dict.fromkeys(tensors, language_model_folder.SINGLE_NAME))
    assert _read(tmp_path) == {"x": 1, "y": 2}


@pytest.mark.parametrize(
    "other",
    [
        dict(x=_array(7)),
        dict(x=_array(1), y=_array(2)),
        dict(y=_array(1)),
        dict(x=_array(1)[:1]),
        dict(x=_array(1, np.int32)),
        dict(x=np.where(np.arange(6).reshape(2, 3) == 5, 7, _array(1))),
    ],
)
def test_two_layouts_with_other_content_are_refused_by_name(tmp_path, other):
    _write_single(tmp_path, **other)
    _write(tmp_path, {_ONE: {"x": _array(1)}}, {"x": _ONE})
    message = r"got both model.safetensors and model.safetensors.index.json .*: remove the one"
    with pytest.raises(ValueError, match=message):
        _read(tmp_path)


@pytest.mark.parametrize("row", [0, 4095, 4096, 9999])
def test_tables_are_compared_to_their_last_row(tmp_path, row):
    table = np.zeros((10_000, 2), np.float32)
    other = table.copy()
    other[row, 1] = 1
    _write_single(tmp_path, x=table, y=other, z=table.astype(ml_dtypes.bfloat16))
    with weight_files.WeightFiles(tmp_path) as files:
        assert not files.are_equal("x", "y") and files.are_equal("x", "z")


@pytest.mark.parametrize("dtype,size", [("F64", 8), ("F32", 4), ("F16", 2), ("BF16", 2)])
def test_floats_are_read(tmp_path, dtype, size):
    _write_raw(tmp_path / language_model_folder.SINGLE_NAME, dtype, 6 * size, bytes(6 * size))
    assert _read(tmp_path) == {"x": 0}


@pytest.mark.parametrize(
    "dtype,size",
    [("I8", 1), ("U8", 1), ("I32", 4), ("I64", 8), ("BOOL", 1), ("F8_E4M3", 1), ("F8_E5M2", 1)],
)
def test_other_dtypes_are_refused_by_name(tmp_path, dtype, size):
    _write_raw(tmp_path / language_model_folder.SINGLE_NAME, dtype, 6 * size, bytes(6 * size))
    with pytest.raises(ValueError, match=f"tensor x in .* must be of F64, .*, got {dtype}: give"):
        _read(tmp_path)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_by_name(tmp_path, dtype, value):
    tensor = _array(1, dtype)
    tensor[1, 2] = value
    _write_single(tmp_path, fine=_array(1, dtype), x=tensor)
    with weight_files.WeightFiles(tmp_path) as files:
        whole = (slice(None), slice(None))
        files.part("fine", whole, np.float32)
        files.part("x", (slice(1), slice(None)), np.float32)  # only what is read is looked at
        with pytest.raises(ValueError, match="tensor x in .* must hold finite numbers, got NaN"):
            files.part("x", whole, np.float32)


def test_what_is_not_finite_in_the_dtype_asked_for_is_refused(tmp_path):
    _write_single(tmp_path, x=_array(1e300, np.float64), y=_array(3.4e38))
    assert _read(tmp_path, np.float64)["x"] == 1e300
    with pytest.raises(ValueError, match=r"tensor [xy] .* got NaN or infinity \(as bfloat16\)"):
        _read(tmp_path, ml_dtypes.bfloat16)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_any_bits_are_judged_as_numpy_judges_them(tmp_path, dtype):
    size = np.dtype(dtype).itemsize
    bits = np.frombuffer(np.random.default_rng(0).bytes(2**16 * size), f"u{size}").copy()
    bits[:3] = [0, 1, 1 << (8 * size - 1)]  # zero, the smallest number, minus zero
    bits = bits.reshape(-1, 1)
    values = bits.view(dtype)
    _write_single(tmp_path, x=values)
    with np.errstate(invalid="ignore"):
        expected = np.isfinite(values.astype(np.float64))[:, 0]
    assert expected[:3].all() and (size > 2 or 0 < (~expected).sum())
    with weight_files.WeightFiles(tmp_path) as files:
        for row in range(0, 2**12):
            if expected[row]:
                files.part("x", (slice(row, row + 1),), dtype)
            else:
                with pytest.raises(ValueError, match="finite"):
                    files.part("x", (slice(row, row + 1),), dtype)


def test_pointers_of_git_lfs_are_refused_with_the_remedy(tmp_path):
    parts = {_ONE: {"x": _array(1)}, _TWO: {"y": _array(2)}}
    _write(tmp_path, parts, {"x": _ONE, "y": _TWO})
    for name in (_TWO, language_model_folder.INDEX_NAME):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_text(_POINTER)
        with pytest.raises(ValueError, match=f"{name} must be the file itself.* git lfs pull"):
            _read(tmp_path)
        (tmp_path / name).write_bytes(whole)
    (tmp_path / language_model_folder.INDEX_NAME).unlink()
    (tmp_path / language_model_folder.SINGLE_NAME).write_text(_POINTER)
    for read in (_read, language_model_folder.paths):
        with pytest.raises(ValueError, match="model.safetensors must be .* git lfs pull"):
            read(tmp_path)


@pytest.mark.parametrize(
    "name,message",
    [
        ("pytorch_model.bin", r"got pytorch_model.bin: write .*save_pretrained\(FOLDER\)"),
        ("pytorch_model-00001-of-00002.bin", "got pytorch_model-00001-of-00002.bin: write"),
        (_ONE, f"got {_ONE}: copy their model.safetensors.index.json too"),
        (
            "model.Q4_K.gguf",
            "got model.Q4_K.gguf: make it a folder with python -m f3tok_jax.export",
        ),
        ("README.md", "got no model.safetensors there"),
    ],
)
def test_folders_of_other_formats_are_told_what_to_do(tmp_path, name, message):
    (tmp_path / name).write_bytes(b"weights")
    with pytest.raises(ValueError, match=message):
        _read(tmp_path)


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 20, -1, -13, -25])
def test_a_file_that_is_cut_is_refused_by_name(tmp_path, kept):
    path = _write_single(tmp_path, x=_array(1)) / language_model_folder.SINGLE_NAME
    path.write_bytes(path.read_bytes()[:kept])
    message = r"model.safetensors must be a whole .*, got \d+ bytes that are none .*: copy or"
    with pytest.raises(ValueError, match=message):
        _read(tmp_path)


def test_a_file_with_bytes_beyond_its_tensors_is_refused(tmp_path):
    path = _write_single(tmp_path, x=_array(1)) / language_model_folder.SINGLE_NAME
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(ValueError, match="must be a whole safetensors file"):
        _read(tmp_path)


def test_missing_left_over_and_wrong_shapes_are_refused_by_name(tmp_path):
    _write_single(tmp_path, x=_array(1))
    cases = (
        ({}, "beyond it, x"),
        ({"x": (3, 2)}, r"\(2, 3\)"),
        ({"x": (2, 3), "y": ()}, "lacks y"),
    )
    with weight_files.WeightFiles(tmp_path) as files:
        for shapes, message in cases:
            with pytest.raises(ValueError, match=message):
                files.check(shapes)


def test_whoever_may_read_a_folders_files_may_read_its_weights(tmp_path):
    weight_files.write(tmp_path / "model.safetensors", {"a": np.zeros(3, np.float32)})
    (tmp_path / "other").touch()
    modes = {(tmp_path / name).stat().st_mode for name in ("model.safetensors", "other")}
    assert len(modes) == 1
