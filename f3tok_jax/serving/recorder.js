// SPDX-FileCopyrightText: The f3tok_jax authors
// SPDX-License-Identifier: Apache-2.0
// Gives the samples of a microphone to the page, block by block, the mean of its channels.

class Recorder extends AudioWorkletProcessor {
  process(inputs) {
    const channels = inputs[0];
    if (channels.length) {
      const block = new Float32Array(channels[0].length);
      for (const channel of channels) {
        for (let i = 0; i < block.length; i++) block[i] += channel[i] / channels.length;
      }
      this.port.postMessage(block, [block.buffer]);
    }
    return true;
  }
}

registerProcessor("recorder", Recorder);
