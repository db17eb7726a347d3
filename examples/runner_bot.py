"""The echo bot on Pipecat's development runner: `install()` is all that this package needs there.

    pip install 'pipecat-ai[runner]'
    python examples/runner_bot.py --transport twilio --proxy bot.example.com

The runner reads the account's credentials from the variables that examples/echo_bot.py names, and
builds serializer and transport itself.
"""

from typing import Any

from echo_bot import run_pipeline
from pipecat.runner.utils import create_transport
from pipecat.transports.websocket.fastapi import FastAPIWebsocketParams

from pipecat_twilio import install

SAMPLE_RATE = 16000
OUTPUT_MS = 40

install()


async def bot(runner_args: Any) -> None:
    """Runs the bot for one call; the runner calls this."""
    transport = await create_transport(
        runner_args,
        {
            "twilio": lambda: FastAPIWebsocketParams(
                audio_in_enabled=True,
                audio_out_enabled=True,
                audio_out_10ms_chunks=OUTPUT_MS // 10,
            )
        },
    )
    stream_sid = runner_args.call_data["stream_id"]
    await run_pipeline(transport, stream_sid, SAMPLE_RATE, OUTPUT_MS)


if __name__ == "__main__":
    from pipecat.runner.run import main

    main()
