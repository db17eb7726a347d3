"""Gives bots on Pipecat's development runner this package's serializer.

The runner builds the serializer itself, and imports its class from
`pipecat.serializers.twilio` at that moment. So that is where `install` puts ours.
"""

import inspect

import pipecat.serializers.twilio as pipecat_module
from loguru import logger

from pipecat_twilio.serializer import TwilioFrameSerializer

_original: type = pipecat_module.TwilioFrameSerializer


def install() -> None:
    """Has Pipecat's runner, and whoever imports from it later, use this package's serializer.

    Repeating it changes nothing. A module that took the class from Pipecat before keeps what it
    has.

    Raises:
        RuntimeError: This release of Pipecat calls its serializer in a way that ours does not
            know; nothing was changed.
    """
    current: type = pipecat_module.TwilioFrameSerializer
    if current is TwilioFrameSerializer:
        return
    if current is not _original or not _accepts_all_of(_original):
        from pipecat import version  # noqa: PLC0415  # only for the text

        raise RuntimeError(
            f"pipecat-ai {version()} has a {current.__module__}.{current.__qualname__} that "
            "pipecat_twilio does not know how to stand in for"
        )
    pipecat_module.TwilioFrameSerializer = TwilioFrameSerializer  # type: ignore[misc,assignment]
    logger.info("pipecat.serializers.twilio.TwilioFrameSerializer is now pipecat_twilio's")


def uninstall() -> None:
    """Undoes `install`."""
    current: type = pipecat_module.TwilioFrameSerializer
    if current is TwilioFrameSerializer:
        pipecat_module.TwilioFrameSerializer = _original  # type: ignore[misc,assignment]
        logger.info("pipecat.serializers.twilio.TwilioFrameSerializer is Pipecat's own again")


def _accepts_all_of(original: type) -> bool:
    """Tells whether our class takes every argument that Pipecat's takes, in the same place.

    API keys came with pipecat-ai 1.14; releases before it take all but those.
    """
    theirs = inspect.signature(original).parameters.values()
    ours = [(p.name, p.kind) for p in inspect.signature(TwilioFrameSerializer).parameters.values()]
    return [(p.name, p.kind) for p in theirs] == ours[: len(theirs)]
