"""Draws when each millisecond of an utterance leaves the serializer, Pipecat's and this package's.

    python benchmarks/timeline.py FOLDER

Speech at 24 kHz is given to both in frames of 40 ms, one every 40 ms, as Pipecat's
transport does; timeline.png shows how much of it is out by when. What is still inside at the end
stays there until the next utterance, which drops it.
"""

import base64
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
from measuring import run, speech_like
from pipecat.frames.frames import OutputAudioRawFrame
from pipecat.serializers.twilio import TwilioFrameSerializer as PipecatSerializer

from pipecat_twilio import SincResampler, TwilioFrameSerializer

mpl.use("Agg")
from matplotlib import pyplot as plt

RATE, SECS, FRAME_MS = 24000, 0.92, 40


def milliseconds_out(serializer_class: type, delay_ms: float) -> np.ndarray:
    """Returns how many milliseconds of the utterance are out after each frame.

    `delay_ms` is how much of the first audio that leaves is the filter's own start.
    """
    serializer = serializer_class("MZ1", params=serializer_class.InputParams(auto_hang_up=False))
    run(serializer.setup(SimpleNamespace(audio_in_sample_rate=RATE)))
    pcm = speech_like(SECS, RATE)
    size = RATE * FRAME_MS // 1000 * 2
    out = [0.0]
    for start in range(0, len(pcm), size):
        text = run(serializer.serialize(OutputAudioRawFrame(pcm[start : start + size], RATE, 1)))
        payload = base64.b64decode(json.loads(text)["media"]["payload"]) if text else b""
        out.append(out[-1] + len(payload) / 8)
    return np.maximum(np.array(out) - delay_ms, 0)


def draw(path: Path) -> None:
    """Draws both as stairs under the line of no delay at all."""
    total = 1000 * SECS
    times = np.arange(0, total + FRAME_MS / 2, FRAME_MS)
    after = total + 200
    own_delay_ms = 1000 * SincResampler(RATE, 8000).delay_secs
    figure, axes = plt.subplots(figsize=(9, 5), layout="constrained")
    axes.plot([0, total], [0, total], color="#555555", lw=1, ls=":", label="as it is spoken")
    for name, color, serializer_class, delay_ms in (
        ("this package", "#d62728", TwilioFrameSerializer, own_delay_ms),
        ("Pipecat's own", "#1f77b4", PipecatSerializer, 0),
    ):
        out = milliseconds_out(serializer_class, delay_ms)
        axes.step([*times, after], [*out, out[-1]], where="post", color=color, lw=2, label=name)
        lost = total - out[-1]
        axes.annotate(
            f"{lost:.0f} ms never leave",
            (after, out[-1]),
            xytext=(-4, 5 if lost < 50 else -14),
            textcoords="offset points",
            ha="right",
            color=color,
        )
    axes.set(
        title="Speech from a 24 kHz pipeline on its way to the caller",
        xlabel="time, ms",
        ylabel="of the utterance sent to Twilio, ms",
        xlim=(0, after),
        ylim=(0, total + 60),
    )
    axes.grid(visible=True, alpha=0.3)
    axes.legend(loc="upper left")
    figure.savefig(path, dpi=130)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(exist_ok=True)
    draw(folder / "timeline.png")
