"""What waits in the queues of Pipecat's output transports.

Pipecat puts every frame through two queues, each with a task of its own. In an output transport,
audio then ends up in a third one. If the first two are empty it can go straight there, which saves
two switches of tasks. If the third has more, short frames can be sent as one message, which costs
less than one for each.

All this is private to Pipecat; `transport.check_pipecat` checks that a release has it.
"""

from operator import attrgetter

from pipecat.frames.frames import OutputAudioRawFrame
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.transports.base_output import BaseOutputTransport

PROCESS_FRAME = "_FrameProcessor__process_frame"
"""The method that processes a frame from a queue."""

QUEUES = tuple(
    f"_FrameProcessor__{name}"
    for name in (
        "input_queue",
        "process_queue",
        "process_frame_task",
        "process_current_frame",
        "should_block_frames",
        "should_block_system_frames",
    )
)
"""The state of a processor's two queues."""

EVENTS = ("on_before_process_frame", "on_after_process_frame")
"""Events that are handled while a frame is processed."""

SENDERS, AUDIO_QUEUE = "_media_senders", "_audio_queue"
"""The senders of an output transport, by destination, and the queue of each."""

JOINED_SECS = 0.04
"""The longest message that frames are joined to: as long as an output frame is by default."""

_queues_of = attrgetter(*QUEUES)


def would_be_next(processor: FrameProcessor) -> bool:
    """Tells whether a frame that is queued now would be the next one to be processed."""
    first, second, task, processed, is_paused, is_paused_for_all = _queues_of(processor)
    before, after = (processor._event_handlers[event] for event in EVENTS)
    return (
        task is not None  # there is one from the StartFrame on, until a CancelFrame
        and first._unfinished_tasks == 0  # counts a system frame that is being processed
        and second.empty()
        and processed is None
        and not (is_paused or is_paused_for_all)
        # A handler may wait, and whoever pushes the audio would wait for it.
        and not (before.handlers or after.handlers)
    )


def following_audio(
    transport: BaseOutputTransport, frame: OutputAudioRawFrame
) -> OutputAudioRawFrame | None:
    """Returns what the audio queue of a frame's destination gives next, if it is audio."""
    sender = transport._media_senders.get(frame.transport_destination)
    queue = getattr(sender, AUDIO_QUEUE, None)
    following = queue._queue[0] if queue and not queue.empty() else None
    return following if isinstance(following, OutputAudioRawFrame) else None
