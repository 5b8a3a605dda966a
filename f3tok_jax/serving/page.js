// SPDX-FileCopyrightText: The f3tok_jax authors
// SPDX-License-Identifier: Apache-2.0
// The page: sounds are recorded, dropped and compared, their latents drawn, texts become sound.

const $ = (id) => document.getElementById(id);
const limits = document.querySelector("main").dataset;
const maxSeconds = Number(limits.seconds);
const maxBytes = Number(limits.bytes);
// What browsers decode and the server does not.
const foreign = /\.(webm|m4a|mp4|aac|3gp|amr|wma)$/i;

function say(id, text, isError = false) {
  $(id).textContent = text;
  $(id).classList.toggle("error", isError);
}

/** Asks the server; what it refuses is an Error with its sentence. */
async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, { method: "POST", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer: is it still running?");
  }
  const found = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(found.error || `The server answers ${response.status}.`);
  return found;
}

function bytesOf(text) {
  return Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
}

/** Lets an element play a sound instead of the one before. */
function give(element, blob) {
  if (element.src) URL.revokeObjectURL(element.src);
  element.src = URL.createObjectURL(blob);
}

/** A WAV file, 16-bit PCM, of one channel: samples in [-1, 1], Hz. */
function wavOf(samples, rate) {
  const view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (at, letters) => [...letters].forEach((one, i) => view.setUint8(at + i, one.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 2 * samples.length, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 1, true); // channels
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  text(36, "data");
  view.setUint32(40, 2 * samples.length, true);
  for (let i = 0; i < samples.length; i++) {
    const value = Math.max(-1, Math.min(1, samples[i]));
    view.setInt16(44 + 2 * i, Math.round(32767 * value), true);
  }
  return new Blob([view], { type: "audio/wav" });
}

/** A file that the server does not read, as the browser decodes it: the mean of its channels. */
async function converted(file) {
  const context = new AudioContext();
  try {
    const sound = await context.decodeAudioData(await file.arrayBuffer());
    const mean = new Float32Array(sound.length);
    for (let channel = 0; channel < sound.numberOfChannels; channel++) {
      sound.getChannelData(channel).forEach((value, i) => (mean[i] += value / sound.numberOfChannels));
    }
    return wavOf(mean, sound.sampleRate);
  } catch {
    throw new Error("This file is no sound that the browser can read.");
  } finally {
    context.close();
  }
}

// Latents: orange above 0, blue below; what is 0 is the page's own colour.
function draw({ frames, width, rate, limit, values }) {
  const bytes = bytesOf(values);
  const canvas = $("latents");
  [canvas.width, canvas.height] = [frames, width];
  const picture = new ImageData(frames, width);
  for (let t = 0; t < frames; t++) {
    for (let d = 0; d < width; d++) {
      const value = (bytes[t * width + d] - 128) / 127;
      const color = value > 0 ? [230, 120, 0] : [30, 120, 220];
      picture.data.set([...color, 255 * Math.abs(value)], 4 * (d * frames + t));
    }
  }
  canvas.getContext("2d").putImageData(picture, 0, 0);
  const said = `${frames} latents of ${width} numbers, ${rate} per second: time to the right, orange ` +
    `above 0, blue below, brightest at ±${limit.toPrecision(2)}`;
  canvas.setAttribute("aria-label", said);
  $("latents_said").textContent = said;
}

// The two sounds: one is heard, and the other takes over at the same place.
const players = { original: $("original"), made: $("made") };
let heard = "original";

function hear(name) {
  const [before, after] = [players[heard], players[name]];
  const isPlaying = !before.paused && !before.ended;
  if (name !== heard) {
    before.pause();
    after.currentTime = before.ended ? 0 : before.currentTime;
    heard = name;
  }
  for (const [one, player] of Object.entries(players)) {
    player.hidden = one !== name;
    $(`play_${one}`).setAttribute("aria-pressed", String(one === name));
  }
  if (isPlaying) after.play();
}

function follow() {
  const player = players[heard];
  $("now").style.left = `${(100 * player.currentTime) / (player.duration || 1)}%`;
  if (!player.paused) requestAnimationFrame(follow);
}

for (const [name, player] of Object.entries(players)) {
  $(`play_${name}`).addEventListener("click", () => hear(name));
  for (const event of ["play", "seeked", "timeupdate"]) player.addEventListener(event, follow);
}
players.original.addEventListener("error", () => {
  if (players.original.src) say("sound_status", "This browser cannot play the original.", true);
});

let asked = null; // the request that is answered
let sent = null; // the sound that is shown, as the server was given it

/** Sends a sound through the tokenizer and shows what becomes of it. */
async function take(sound) {
  asked?.abort();
  const mine = (asked = new AbortController());
  $("heard").hidden = true;
  Object.values(players).forEach((player) => player.pause());
  say("sound_status", "On its way through the tokenizer …");
  try {
    const given = foreign.test(sound.name || "") ? await converted(sound) : sound;
    mine.signal.throwIfAborted();
    if (given.size > maxBytes) {
      throw new Error(`A file must have at most ${maxBytes / 1e6} MB, this one has ${(given.size / 1e6).toFixed(1)}.`);
    }
    const options = { body: given, headers: { "Content-Type": "application/octet-stream" } };
    const found = await ask("api/reconstruction", { ...options, signal: mine.signal });
    mine.signal.throwIfAborted();
    const made = new Blob([bytesOf(found.sound)], { type: "audio/wav" });
    sent = given;
    give(players.original, sent);
    give(players.made, made);
    $("save").href = players.made.src;
    draw(found.latents);
    $("now").style.left = "0";
    $("heard").hidden = false;
    hear("original");
    const seconds = `${found.seconds.toFixed(2)} s at ${found.sample_rate.toLocaleString("en")} Hz.`;
    say("sound_status", [seconds, ...found.notes].join(" "));
    if ($("question")) await answer(mine.signal);
  } catch (error) {
    if (asked === mine) say("sound_status", error.message, true);
  }
}

/** What the language model answers about the sound that is shown, until another is taken. */
async function answer(signal) {
  $("answer").hidden = true;
  $("ask").disabled = true;
  say("answer_status", "The language model listens …");
  try {
    const task = encodeURIComponent($("question").value);
    const headers = { "Content-Type": "application/octet-stream" };
    const found = await ask(`api/transcript?task=${task}`, { body: sent, headers, signal });
    signal.throwIfAborted();
    $("answer").textContent = found.text;
    $("answer").hidden = !found.text;
    say("answer_status", found.text ? "" : "It answers nothing.");
  } catch (error) {
    if (!signal.aborted) say("answer_status", error.message, true);
  } finally {
    if (!signal.aborted) $("ask").disabled = false;
  }
}

if ($("question")) {
  $("ask").addEventListener("click", () => answer(asked.signal));
  $("question").addEventListener("change", () => answer(asked.signal));
}

// A file is chosen or dropped.
$("choose").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", () => {
  if ($("file").files.length) take($("file").files[0]);
  $("file").value = ""; // so that the same can be chosen again
});
for (const event of ["dragover", "dragleave", "drop"]) {
  // Beside its place a dropped file would leave the page.
  document.addEventListener(event, (given) => {
    given.preventDefault();
    $("drop").classList.toggle("over", event === "dragover");
    if (event === "drop" && given.dataTransfer.files.length) take(given.dataTransfer.files[0]);
  });
}

// A recording, until it is stopped or as long as may be.
let recording = null;

/** Lets go of the microphone. */
function close(stream, context) {
  stream.getTracks().forEach((track) => track.stop());
  context?.close();
}

async function begin() {
  Object.values(players).forEach((player) => player.pause());
  // As it sounds: browsers would take echo and noise away.
  const audio = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  const stream = await navigator.mediaDevices.getUserMedia({ audio });
  let context = null;
  try {
    context = new AudioContext();
    await context.audioWorklet.addModule("recorder.js");
    record(stream, context);
  } catch (error) {
    close(stream, context);
    throw error;
  }
}

function record(stream, context) {
  const node = new AudioWorkletNode(context, "recorder", { numberOfOutputs: 0 });
  const blocks = [];
  let count = 0;
  node.port.onmessage = ({ data }) => {
    blocks.push(data);
    count += data.length;
    $("level").value = data.reduce((most, value) => Math.max(most, Math.abs(value)), 0.8 * $("level").value);
    $("clock").textContent = `${(count / context.sampleRate).toFixed(1)} s`;
    if (count >= (maxSeconds - 0.1) * context.sampleRate) finish();
  };
  context.createMediaStreamSource(stream).connect(node);
  recording = { stream, context, node, blocks };
  $("record").textContent = "Stop";
  $("recording").hidden = false;
  say("sound_status", "Recording …");
}

function finish() {
  const { stream, context, node, blocks } = recording;
  recording = null;
  node.port.onmessage = null;
  close(stream, context);
  $("record").textContent = "Record";
  $("recording").hidden = true;
  const samples = new Float32Array(blocks.reduce((total, block) => total + block.length, 0));
  blocks.reduce((at, block) => (samples.set(block, at), at + block.length), 0);
  if (samples.length) take(wavOf(samples, context.sampleRate));
  else say("sound_status", "Nothing was recorded.", true);
}

$("record").addEventListener("click", async () => {
  if (recording) return finish();
  $("record").disabled = true;
  try {
    await begin();
  } catch (error) {
    say("sound_status", `The microphone cannot be used: ${error.message}`, true);
  } finally {
    $("record").disabled = false;
  }
});
if (!navigator.mediaDevices) {
  $("record").disabled = true;
  say("sound_status", "Browsers let a page record at http://localhost or by https alone.");
}

// A text becomes sound.
$("say")?.addEventListener("submit", async (given) => {
  given.preventDefault();
  $("make").disabled = true;
  $("spoken").pause();
  $("spoken").hidden = true;
  say("text_status", "Being made …");
  try {
    const body = JSON.stringify({
      text: $("text").value,
      task: $("kind").value,
      seconds: Number($("seconds").value),
      seed: Number($("seed").value),
    });
    const headers = { "Content-Type": "application/json" };
    const found = await ask("api/speech", { body, headers });
    give($("spoken"), new Blob([bytesOf(found.sound)], { type: "audio/wav" }));
    $("spoken").hidden = false;
    say("text_status", [`${found.seconds.toFixed(2)} s, ${found.ending}.`, ...found.notes].join(" "));
    $("spoken").play().catch(() => {}); // A browser may want another click.
  } catch (error) {
    say("text_status", error.message, true);
  } finally {
    $("make").disabled = false;
  }
});
