# SPDX-FileCopyrightText: The f3tok_jax authors
# SPDX-License-Identifier: Apache-2.0
"""The autoencoder in PyTorch is the one in JAX: whole, padded, in a stream, and without JAX."""

import itertools
import json
import subprocess
import sys
import wave

import numpy as np
import pytest
from safetensors import numpy as safetensors_numpy

from f3tok_jax import export
from f3tok_jax.exporting import torch_folder
from f3tok_jax.inference import codec
from f3tok_jax.inference import tokenizer
from tests.support import narrow_autoencoders
from tests.support import tiny_models
from tests.support import tiny_runs
from tests.support import torch_models

# Float32 sums in another order, over 7 stages: of latents, whose rms is 1, and in units of the sound's
# rms, whose peaks are ten times that.
_LATENT_ATOL, _SOUND_ATOL = 1e-4, 1e-3


def _sound(*shape):
    return 0.1 * np.random.default_rng(0).normal(size=shape).astype(np.float32)


def _check_sound(found, expected):
    scale = np.sqrt(np.mean(np.square(expected)))
    np.testing.assert_allclose(found, expected, rtol=0, atol=_SOUND_ATOL * scale)


@pytest.mark.parametrize("preset", narrow_autoencoders.GEOMETRIES)
@pytest.mark.parametrize("odd", [1, 333])
def test_latents_and_sound_are_those_of_jax(preset, odd):
    autoencoder, variables = narrow_autoencoders.built(preset)
    torch, model = torch_models.autoencoder_in_torch(autoencoder, variables)
    waveform = _sound(2, 5 * autoencoder.samples_per_latent + odd)
    apply = tiny_models.compiled(autoencoder)
    latents = apply(variables, waveform, method="waveform_to_latents")
    sound = apply(variables, latents, method="latents_to_waveform")
    encoded = model.encode(torch.from_numpy(waveform)[:, None])
    np.testing.assert_allclose(encoded.latents, latents, atol=_LATENT_ATOL)
    _check_sound(model.decode(encoded.latents).audio[:, 0].numpy(), np.asarray(sound))


_LEVELED = {"tiny_24khz": -20.0, "base_48khz": -31.5}


@pytest.mark.parametrize("preset", _LEVELED)
def test_a_model_with_a_level_hears_all_sounds_at_it_as_in_jax(preset):
    autoencoder, variables = narrow_autoencoders.built(preset)
    autoencoder = autoencoder.clone(level_db=_LEVELED[preset])
    torch, model = torch_models.autoencoder_in_torch(autoencoder, variables)
    ours, rate = codec.Codec(autoencoder, variables["params"]), autoencoder.sample_rate
    noise = _sound(4, rate // 2 + 333)
    # Loud; with pauses, which are no silence; hardly anything; and nothing.
    noise[0] *= 3
    noise[1, rate // 8 : rate // 3] *= 1e-3
    noise[2] *= 1e-4
    lengths = [noise.shape[1], noise.shape[1] - 700, rate // 30, rate // 4]
    noise[3] = 0.0
    sounds = [row[:length].copy() for row, length in zip(noise, lengths)]
    mask = torch.arange(noise.shape[1])[None] < torch.tensor(lengths)[:, None]
    noise[~mask.numpy()] = np.nan  # What is behind an end is never looked at.
    encoded = model.encode(torch.from_numpy(noise), mask)
    gains = ours.gains(sounds)
    np.testing.assert_allclose(encoded.audio_scales, 1 / np.array(gains), rtol=1e-5)
    decoded = model.decode(encoded.latents, encoded.padding_mask, audio_scales=encoded.audio_scales)
    expected = ours.encode(sounds, gains=gains)
    for row, wanted in enumerate(ours.decode(expected, gains=gains)):
        latents = encoded.latents[row, encoded.padding_mask[row]]
        np.testing.assert_allclose(latents, expected[row], atol=_LATENT_ATOL)
        _check_sound(decoded.audio[row, 0, decoded.padding_mask[row]].numpy(), wanted)
    # Without scales the sound is at the model's level; a stream is heard as it comes.
    plain = model.decode(encoded.latents, encoded.padding_mask).audio[:, 0]
    scaled = plain * encoded.audio_scales[:, None]
    np.testing.assert_allclose(scaled, decoded.audio[:, 0], rtol=1e-5, atol=1e-9)
    streamed = model.encode(torch.from_numpy(sounds[0])[None], use_cache=True)
    assert streamed.audio_scales is None
    given = model.encode(
        torch.from_numpy(sounds[0])[None], use_cache=True, audio_scales=encoded.audio_scales[:1]
    )
    count = given.latents.shape[1]
    np.testing.assert_allclose(given.latents[0], expected[0][:count], atol=_LATENT_ATOL)
    assert (streamed.latents - given.latents).abs().max() > 1e-2
    for wrong, words in ((torch.ones(2), "one of each row"), (torch.zeros(4), "above 0")):
        with pytest.raises(ValueError, match=f"audio_scales must be .*{words}"):
            model.decode(encoded.latents, encoded.padding_mask, audio_scales=wrong)


@pytest.mark.parametrize("preset", ["tiny", "tiny_24khz"])
def test_every_row_of_a_padded_batch_is_what_it_is_alone(preset):
    autoencoder, variables = narrow_autoencoders.built(preset)
    torch, model = torch_models.autoencoder_in_torch(autoencoder, variables)
    hop = autoencoder.samples_per_latent
    lengths = [1, hop, 3 * hop + 7, 6 * hop - 1]
    waveform = _sound(len(lengths), max(lengths))  # What is behind a row's end is noise, too.
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    encoded = model.encode(torch.from_numpy(waveform), mask)
    decoded = model.decode(encoded.latents, encoded.padding_mask)
    assert encoded.padding_mask.sum(1).tolist() == [-(-n // hop) for n in lengths]
    for row, n in enumerate(lengths):
        alone = model.encode(torch.from_numpy(waveform[row : row + 1, :n]))
        valid = encoded.latents[row, encoded.padding_mask[row]]
        np.testing.assert_allclose(valid, alone.latents[0], atol=_LATENT_ATOL)
        sound = model.decode(alone.latents).audio[0, 0].numpy()
        _check_sound(decoded.audio[row, 0, decoded.padding_mask[row]].numpy(), sound)


@pytest.mark.parametrize("preset", ["tiny", "tiny_24khz"])
@pytest.mark.parametrize("chunk", [1, 160, 641, 2000])
def test_a_stream_is_the_whole_also_of_rows_that_end_apart(preset, chunk):
    autoencoder, variables = narrow_autoencoders.built(preset)
    torch, model = torch_models.autoencoder_in_torch(autoencoder, variables)
    hop = autoencoder.samples_per_latent
    num_samples = 4 * hop + 90 if chunk > 1 else hop + 260
    waveform = torch.from_numpy(_sound(2, num_samples))
    mask = torch.arange(num_samples)[None] < torch.tensor([[num_samples], [hop - 5]])
    encoded = model.encode(waveform, mask)
    whole = model.decode(encoded.latents, encoded.padding_mask)
    latents, sounds, of_latents, of_sound = [], [], None, None
    buffer = torch.empty_like(waveform)  # A recorder's own, written again and again.
    # A chunk is empty at the beginning, one later, and one at the end.
    cuts = sorted([0, chunk, *range(0, num_samples, chunk), num_samples, num_samples])
    for index, (first, last) in enumerate(itertools.pairwise(cuts), start=2):
        more = index < len(cuts)
        piece = buffer[:, : last - first].copy_(waveform[:, first:last])
        given = dict(padding_cache=of_latents, use_cache=more)
        step = model.encode(piece, mask[:, first:last], **given)
        of_latents = step.padding_cache
        given = dict(padding_cache=of_sound, use_cache=more)
        said = model.decode(step.latents, step.padding_mask, **given)
        of_sound = said.padding_cache
        latents.append(step.latents)
        sounds.append(torch.where(said.padding_mask[:, None], said.audio, 0.0))
    np.testing.assert_allclose(torch.cat(latents, 1), encoded.latents, atol=_LATENT_ATOL)
    expected = torch.where(whole.padding_mask[:, None], whole.audio, 0.0)
    _check_sound(torch.cat(sounds, 2).numpy(), expected.numpy())


def test_in_bfloat16_spectra_stay_float32_and_latents_are_near():
    autoencoder, variables = narrow_autoencoders.built("tiny")
    torch, model = torch_models.autoencoder_in_torch(autoencoder, variables)
    waveform = torch.from_numpy(_sound(1, 8 * autoencoder.samples_per_latent))
    expected = model.encode(waveform).latents
    found = model.to(torch.bfloat16).encode(waveform.to(torch.bfloat16)).latents
    assert found.dtype == model.decode(found).audio.dtype == torch.float32
    # Latents of rms 1; 12 layers in a row that round to 8 bits, the sound itself too.
    assert (found - expected).square().mean().sqrt() < 0.05


def test_it_is_traced_whole_for_a_compiler_and_for_other_programs():
    autoencoder, variables = narrow_autoencoders.built("tiny")
    torch, model = torch_models.autoencoder_in_torch(autoencoder, variables)
    waveform = torch.from_numpy(_sound(2, 1, 3 * autoencoder.samples_per_latent + 5))
    expected = model(waveform)
    compiled = torch.compile(model, backend="eager", fullgraph=True)(waveform)
    exported = torch.export.export(model, (waveform,)).module()(waveform)
    for found in (compiled, exported):
        np.testing.assert_allclose(found.latents, expected.latents, atol=_LATENT_ATOL)
        _check_sound(found.audio.numpy(), expected.audio.numpy())


def test_a_file_that_reads_back_as_other_weights_is_no_export(tmp_path, monkeypatch, capsys):
    load = torch_folder.safetensors_numpy.load_file

    def damaged(path):
        return {name: array + (name == "encoder.stem.bias") for name, array in load(path).items()}

    monkeypatch.setattr(torch_folder.safetensors_numpy, "load_file", damaged)
    tiny_models.write_run(str(tmp_path / "run"))
    assert export.main([f"--workdir={tmp_path}/run", f"--output={tmp_path}/model"]) == 1
    said = capsys.readouterr().err
    assert "must read back as the weights that were written" in said and said.count("\n") == 1
    assert not (tmp_path / "model").exists()


def test_what_cannot_be_coded_is_refused_in_one_sentence():
    torch, model = torch_models.autoencoder_in_torch(*narrow_autoencoders.built("tiny"))
    with pytest.raises(ValueError, match=r"mono, got \(1, 2, 640\): mix its channels first"):
        model.encode(torch.zeros(1, 2, 640))
    with pytest.raises(ValueError, match=r"padding_mask must be \(1, 640\)"):
        model.encode(torch.zeros(1, 640), torch.ones(1, 639))
    with pytest.raises(ValueError, match=r"latents must be \[b, t, 8\], got \(1, 4, 9\)"):
        model.decode(torch.zeros(1, 4, 9))
    with pytest.raises(ValueError, match=r"must be float in \[-1, 1\], got torch.int16"):
        model.encode(torch.zeros(1, 640, dtype=torch.int16))
    begun = model.encode(torch.zeros(1, 800), use_cache=True)
    for wrong in (
        lambda: model.decode(begun.latents, padding_cache=begun.padding_cache),
        lambda: model.encode(torch.zeros(2, 640), padding_cache=begun.padding_cache),
    ):
        with pytest.raises(ValueError, match="what the same method gave for the chunk before"):
            wrong()


_WITHOUT_JAX = """
import sys
sys.modules.update(dict.fromkeys(("jax", "flax", "f3tok_jax")))  # Not to be imported.
import numpy as np, torch, transformers
folder, sound, found = sys.argv[1:]
extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
model = transformers.AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
waveform = np.load(sound)
inputs = extractor(
    [waveform, waveform[:1000]], sampling_rate=extractor.sampling_rate, return_tensors="pt"
)
with torch.no_grad():
    encoded = model.encode(**inputs)
    audio = model(**inputs).audio
assert encoded.padding_mask.sum(1).tolist()[1] == 2
np.savez(found, latents=encoded.latents[0].numpy(), sound=audio[0, 0].numpy())
"""


def test_a_run_is_exported_and_used_where_there_is_no_jax(tmp_path, capsys):
    pytest.importorskip("torch", reason="parity needs torch, of the parity extra")
    pytest.importorskip("transformers", reason="parity needs transformers")
    run, folder = tmp_path / "run", tmp_path / "model"
    tiny_models.write_run(str(run))
    assert export.main([f"--workdir={run}", f"--output={folder}"]) == 0
    assert f"{folder}: the autoencoder of {run} at step" in capsys.readouterr().out
    waveform = _sound(4000)
    np.save(tmp_path / "sound.npy", waveform)
    arguments = [str(folder), str(tmp_path / "sound.npy"), str(tmp_path / "found.npz")]
    subprocess.run([sys.executable, "-c", _WITHOUT_JAX, *arguments], check=True, timeout=300)
    found, ours = np.load(tmp_path / "found.npz"), tokenizer.F3Tokenizer.from_pretrained(str(run))
    latents = ours.encode(waveform)
    np.testing.assert_allclose(found["latents"], latents.values, atol=_LATENT_ATOL)
    _check_sound(found["sound"], ours.decode(latents))
    config = json.loads((folder / "config.json").read_text())
    assert config["latents_fingerprint"] == ours.fingerprint
    assert export.main([f"--workdir={run}", f"--output={folder}"]) == 1
    assert "--output must be a local folder that is not there yet" in capsys.readouterr().err


_GENERATED_WITHOUT_JAX = """
import sys
sys.modules.update(dict.fromkeys(("jax", "flax", "f3tok_jax")))  # Not to be imported.
import numpy as np, torch, transformers
folder, sound, text, found = sys.argv[1:]
model = transformers.AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
words = transformers.PreTrainedTokenizerFast.from_pretrained(folder)
waveform = torch.from_numpy(np.load(sound))[None]
with torch.no_grad():
    latents = model.encode(waveform).latents
    heard = model.represent(latents).representations
given = model.prepare_text(words, text)
answers = words.batch_decode(model.answer(latents), skip_special_tokens=True)
said = model.generate(**given, latents=latents[:, :2], max_seconds=0.4, temperature=0.0)
np.savez(
    found, representations=heard[0].numpy(), latents=said.latents[0].numpy(),
    sound=said.audio[0, 0].numpy(), ids=given["input_ids"][0].numpy(), answer=answers[0].strip(),
)
model.save_pretrained(folder + "_again")
again = transformers.AutoModel.from_pretrained(folder + "_again", trust_remote_code=True)
words = transformers.PreTrainedTokenizerFast.from_pretrained(folder + "_again")
assert again.prepare_text(words, text)["input_ids"].equal(given["input_ids"])
assert all(torch.equal(*pair) for pair in zip(model.parameters(), again.parameters(), strict=True))
for part in ("decoder", "representation_encoder", "flow_head"):
    options = dict(parts=[part], trust_remote_code=True, output_loading_info=True)
    alone, loaded = transformers.AutoModel.from_pretrained(folder, **options)
    assert [name for name, _ in alone.named_children()] == [part], part
    assert not any(loaded[problem] for problem in ("missing_keys", "unexpected_keys")), loaded
"""


_TASK_STAGE = ("--config.representation.train=encoder", "--config.language_model.train=low_rank")


@pytest.mark.parametrize("more", [(), _TASK_STAGE])
def test_a_generation_run_is_exported_with_all_that_it_builds_on(more, tmp_path, capsys):
    pytest.importorskip("torch", reason="parity needs torch, of the parity extra")
    pytest.importorskip("transformers", reason="parity needs transformers")
    run, folder = tiny_runs.write_chain(tmp_path, *more)["generation"], tmp_path / "model"
    assert export.main([f"--workdir={run}", f"--output={folder}"]) == 0
    capsys.readouterr()
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card.count("on a frozen language model") == 2 - bool(more)  # of the run before, always
    assert ("on a frozen representation" in card) != bool(more)
    assert card.count("which it trained on (") == 2 * bool(more)
    assert str(tmp_path) not in card
    ours, waveform, text = tokenizer.F3Tokenizer.from_pretrained(run), _sound(4000), "a <b> c"
    np.save(tmp_path / "sound.npy", waveform)
    arguments = [str(folder), str(tmp_path / "sound.npy"), text, str(tmp_path / "found.npz")]
    command = [sys.executable, "-c", _GENERATED_WITHOUT_JAX, *arguments]
    subprocess.run(command, check=True, timeout=300)
    found, latents = np.load(tmp_path / "found.npz"), ours.encode(waveform)
    np.testing.assert_allclose(
        found["representations"], ours.represent(latents).values, atol=_LATENT_ATOL
    )
    assert found["answer"] == ours.transcribe(latents, task="caption")
    ids, _ = ours.text_to_sound.text.tokens("transcription", text, key="")
    np.testing.assert_array_equal(found["ids"], ids)
    back = tokenizer.F3Tokenizer.from_pretrained(str(folder))
    for options in (dict(max_seconds=0.4), dict(max_seconds=0.4, seed=1, prompt=latents)):
        said = (one.generate(text, **options) for one in (ours, back))
        np.testing.assert_array_equal(*said)
    assert back.transcribe(waveform) == ours.transcribe(waveform)
    request = ours.text_to_sound.request(text, prompt=latents.values[:2])
    options = dict(max_patches=5, sampler=dict(temperature=0.0))
    (expected,), _ = ours.text_to_sound.generate([request], **options)
    np.testing.assert_allclose(found["latents"], expected, atol=10 * _LATENT_ATOL)
    _check_sound(found["sound"], np.clip(ours.codec.decode([expected])[0], -1, 1))


@pytest.mark.parametrize("problem", ["lack", "have beyond it"])
def test_weights_that_are_not_all_there_are_no_model(problem, tmp_path):
    pytest.importorskip("torch", reason="parity needs torch, of the parity extra")
    transformers = pytest.importorskip("transformers", reason="parity needs transformers")
    folder = tmp_path / "model"
    tiny_models.write_run(str(tmp_path / "run"))
    assert export.main([f"--workdir={tmp_path}/run", f"--output={folder}"]) == 0
    tensors = safetensors_numpy.load_file(folder / "model.safetensors")
    name = "encoder.stem.weight" if problem == "lack" else "encoder.more.weight"
    tensors = {**tensors, "encoder.more.weight": tensors["encoder.stem.weight"]}
    del tensors["encoder.stem.weight" if problem == "lack" else "encoder.stem.bias"]
    if problem == "lack":
        del tensors["encoder.more.weight"]
    else:
        tensors["encoder.stem.bias"] = np.zeros(8, np.float32)
    safetensors_numpy.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=f"they {problem} {name}"):
        transformers.AutoModel.from_pretrained(folder, trust_remote_code=True)


def test_the_example_trains_a_decoder_on_a_folder_of_wavs_and_keeps_the_rest(tmp_path):
    torch = pytest.importorskip("torch", reason="parity needs torch, of the parity extra")
    transformers = pytest.importorskip("transformers", reason="parity needs transformers")
    run, folder, tuned = tmp_path / "run", tmp_path / "model", tmp_path / "tuned"
    tiny_models.write_run(str(run))
    assert export.main([f"--workdir={run}", f"--output={folder}"]) == 0
    (tmp_path / "wavs").mkdir()
    for index, seconds in enumerate((0.3, 1.2)):
        with wave.open(str(tmp_path / "wavs" / f"{index}.wav"), "wb") as file:
            file.setparams((1, 2, 16_000, 0, "NONE", ""))
            file.writeframes((2**15 * _sound(int(16_000 * seconds))).astype(np.int16).tobytes())
    program = [sys.executable, str(folder / "finetune_decoder.py"), str(tmp_path / "wavs")]
    options = [f"--output={tuned}", "--steps=12", "--batch_size=2", "--learning_rate=1e-2"]
    done = subprocess.run(
        program + options, check=True, timeout=300, capture_output=True, text=True
    )
    distances = [float(line.split()[-1]) for line in done.stdout.splitlines()]
    assert distances[-1] < 0.9 * distances[0]
    before, after = (
        transformers.AutoModel.from_pretrained(path, trust_remote_code=True).state_dict()
        for path in (folder, tuned)
    )
    for name in before:
        assert torch.equal(before[name], after[name]) == name.startswith("encoder"), name
    assert transformers.AutoFeatureExtractor.from_pretrained(tuned).sampling_rate == 16_000
    again = subprocess.run(program + options, timeout=300, capture_output=True, text=True)
    assert again.returncode == 1 and "not be there yet" in again.stderr
