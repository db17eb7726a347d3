// The phone's page; the same file, loaded into the audio thread, is its handset.

const STEP_SECS = 0.02; // of audio in a message, in both directions
const SHOWN_STEPS = 10 / STEP_SECS; // by the timeline

// Sends what is said into it to the page, and plays what the page got from the phone.
function registerHandset() {
  const stepSamples = Math.round(sampleRate * STEP_SECS);
  const KEPT = 3 * stepSamples; // before it plays: the steps do not come evenly
  const MAX_KEPT = 12 * stepSamples; // then the oldest are dropped, so that the delay stays short

  class Handset extends AudioWorkletProcessor {
    constructor() {
      super();
      this.said = [];
      this.unplayed = [];
      this.isPlaying = false;
      this.port.onmessage = ({ data }) => this.take(data);
    }

    take(step) {
      if (step === "clear") this.unplayed = [];
      else this.unplayed.push(...step);
      if (this.unplayed.length > MAX_KEPT) this.unplayed.splice(0, MAX_KEPT - KEPT);
    }

    process([[input]], [[output]]) {
      for (const sample of input ?? new Float32Array(output.length)) {
        this.said.push(32767 * Math.max(-1, Math.min(1, sample)));
      }
      if (this.said.length >= stepSamples) {
        this.port.postMessage(Int16Array.from(this.said.splice(0, stepSamples)));
      }
      if (this.isPlaying || this.unplayed.length >= KEPT) {
        const samples = this.unplayed.splice(0, output.length);
        samples.forEach((sample, i) => (output[i] = sample / 32768));
        this.isPlaying = samples.length === output.length;
      }
      return true;
    }
  }

  registerProcessor("handset", Handset);
}

function startPage() {
  const RETRY_MS = 2000;

  const element = (id) => document.getElementById(id);
  const timeline = new Timeline(element("legs"));
  let socket;
  let audio = null; // an AudioContext while there is a call
  let handset;
  let microphone = null;
  const keys = new Map();
  for (const key of "123456789*0#") {
    const button = element("keypad").appendChild(document.createElement("button"));
    Object.assign(button, { textContent: key, disabled: true, onclick: () => press(key) });
    keys.set(key, button);
  }

  connect();
  element("call").onclick = () => (audio ? order({ do: "hang up" }) : call());
  element("sample").onclick = async () => say(await fetch("/speech.wav"));
  element("file").onchange = ({ target }) => {
    if (target.files.length) say(target.files[0]);
    target.value = "";
  };
  document.addEventListener("keydown", ({ key, repeat, ctrlKey, altKey, metaKey }) => {
    if (!(repeat || ctrlKey || altKey || metaKey)) keys.get(key)?.click();
  });

  function connect() {
    socket = new WebSocket(`ws://${location.host}/page`);
    socket.binaryType = "arraybuffer";
    socket.onmessage = ({ data }) => {
      if (typeof data === "string") {
        const event = JSON.parse(data);
        events[event.event](event);
      } else if (audio) {
        handset.port.postMessage(new Int16Array(data));
      }
    };
    socket.onclose = () => {
      end("The phone is switched off: start it again.");
      element("call").disabled = true;
      setTimeout(connect, RETRY_MS);
    };
  }

  const order = (what) => socket.send(JSON.stringify(what));

  async function call() {
    audio = new AudioContext({ latencyHint: "interactive" });
    show("call", "Hang up");
    element("call").classList.add("on");
    show("status", "Waiting for the microphone …");
    element("notices").replaceChildren();
    element("messages").replaceChildren();
    for (const id of ["last", "median", "gaps"]) show(id, "none yet");
    timeline.reset();
    await audio.audioWorklet.addModule("/page.js");
    const mono = { channelCount: 1, channelCountMode: "explicit", outputChannelCount: [1] };
    handset = new AudioWorkletNode(audio, "handset", mono);
    handset.connect(audio.destination);
    handset.port.onmessage = ({ data }) => {
      if (socket.readyState === WebSocket.OPEN) socket.send(data);
    };
    try {
      microphone = await navigator.mediaDevices.getUserMedia({ audio: true });
      audio?.createMediaStreamSource(microphone).connect(handset);
    } catch (error) {
      const fault =
        error.name === "NotAllowedError" ? "No permission to use a microphone" : "No microphone";
      notice(`${fault}: the bot hears silence, unless you say a file.`);
    }
    if (audio) order({ do: "call", rate: audio.sampleRate });
    else stopMicrophone(); // the phone was switched off meanwhile
  }

  function end(sentence) {
    show("status", sentence);
    show("call", "Call");
    element("call").classList.remove("on");
    element("call").disabled = socket.readyState !== WebSocket.OPEN;
    enableTalking(false);
    if (document.activeElement.disabled) element("call").focus();
    stopMicrophone();
    audio?.close();
    audio = null;
  }

  function stopMicrophone() {
    for (const track of microphone?.getTracks() ?? []) track.stop();
    microphone = null;
  }

  // Plays an audio file into the handset, as if it had been said.
  async function say(file) {
    try {
      const source = audio.createBufferSource();
      source.buffer = await audio.decodeAudioData(await file.arrayBuffer());
      source.connect(handset);
      source.start();
    } catch {
      notice("That file cannot be said: it is no audio that this browser can read.");
    }
  }

  function press(key) {
    order({ do: "press", key });
    timeline.sign("key", key);
    log(`you pressed ${key}`);
  }

  function show(id, text) {
    element(id).textContent = text;
  }

  function append(id, text) {
    const item = element(id).appendChild(document.createElement("li"));
    item.textContent = text;
    if (element(id).childElementCount > 200) element(id).firstChild.remove();
    element(id).scrollTop = element(id).scrollHeight;
  }

  const notice = (text) => append("notices", text);
  const log = (text) => append("messages", `${(timeline.count * STEP_SECS).toFixed(2)} s: ${text}`);

  function enableTalking(isTalking) {
    for (const input of [...keys.values(), element("sample"), element("file")]) {
      input.disabled = !isTalking;
    }
  }

  const events = {
    ready({ bot }) {
      show("bot", bot);
      element("call").disabled = false;
      show("status", "Ready to call.");
    },
    calling({ call_sid }) {
      show("status", "Calling …");
      element("recording").href = `/recordings/${call_sid}.wav`;
    },
    talking() {
      show("status", "You are talking to the bot.");
      element("recording").hidden = false;
      enableTalking(true);
    },
    step: ({ caller, bot }) => timeline.add(caller, bot),
    gap({ ms, count, sum_ms }) {
      show("gaps", `${count}, in all ${sum_ms} ms`);
      timeline.sign("gap", "", ms);
    },
    clear() {
      handset.port.postMessage("clear");
      timeline.sign("clear", "interrupted");
      log("the bot was interrupted");
    },
    mark({ name }) {
      timeline.sign("mark", name);
      log(`mark “${name}”`);
    },
    answer({ ms, median_ms }) {
      show("last", `${ms} ms`);
      show("median", `${median_ms} ms`);
      log(`the bot answered after ${ms} ms`);
    },
    warning({ code, text }) {
      notice(`Twilio would warn of a message from the bot, and drop it (${code}): ${text}`);
    },
    notice: ({ text }) => notice(text),
    ended: ({ text }) => end(text),
  };
}

// The last seconds of both legs, on a canvas: the caller above, the bot below.
class Timeline {
  constructor(canvas) {
    this.canvas = canvas;
    this.reset();
    this.draw();
  }

  reset() {
    this.steps = []; // {caller, bot}: peaks from 0 to 1; bot is null where nothing was played
    this.count = 0; // all steps, those that have left the picture included
    this.signs = []; // {at, kind, text, ms}
  }

  add(caller, bot) {
    this.count++;
    this.steps.push({ caller, bot });
    if (this.steps.length > SHOWN_STEPS) this.steps.shift();
    this.signs = this.signs.filter(({ at }) => at > this.count - SHOWN_STEPS);
  }

  sign(kind, text, ms = 0) {
    this.signs.push({ at: this.count, kind, text, ms });
  }

  draw() {
    requestAnimationFrame(() => this.draw());
    const { clientWidth: width, clientHeight: height } = this.canvas;
    this.canvas.width = width * devicePixelRatio;
    this.canvas.height = height * devicePixelRatio;
    const style = getComputedStyle(this.canvas);
    const colour = (name) => getComputedStyle(document.querySelector(`.${name}`)).color;
    const pen = this.canvas.getContext("2d");
    pen.scale(devicePixelRatio, devicePixelRatio);
    pen.font = `12px ${style.fontFamily}`;
    const stepWidth = width / SHOWN_STEPS;
    const x = (at) => width - (this.count - at) * stepWidth;
    const lane = height / 2;

    pen.fillStyle = style.borderColor;
    for (let at = Math.ceil(this.count * STEP_SECS) / STEP_SECS; x(at) > 0; at -= 1 / STEP_SECS) {
      pen.fillRect(x(at), 0, 1, height);
    }
    pen.fillRect(0, lane, width, 1);
    const first = this.count - this.steps.length;
    for (const [leg, middle] of [["caller", lane * 0.5], ["bot", lane * 1.5]]) {
      pen.fillStyle = colour(leg);
      this.steps.forEach((step, i) => {
        if (step[leg] === null) return;
        const half = Math.max(0.5, Math.sqrt(step[leg]) * lane * 0.45);
        pen.fillRect(x(first + i), middle - half, stepWidth + 0.5, 2 * half);
      });
    }
    for (const { at, kind, text, ms } of this.signs) {
      pen.fillStyle = colour(kind === "key" ? "caller" : kind);
      const wide = Math.max(2, (ms / 1000 / STEP_SECS) * stepWidth);
      const top = kind === "key" ? 0 : lane;
      pen.fillRect(x(at) - wide, top, wide, lane);
      // What a key leads to comes at once: so a mark has its name at the other end of its line.
      pen.fillText(text, x(at) + 4, kind === "mark" ? height - 6 : top + 14);
    }
  }
}

if (globalThis.AudioWorkletProcessor) {
  registerHandset();
} else {
  startPage();
}
