from pipecat_twilio.audio import ulaw as ulaw
from pipecat_twilio.audio.resampler import SincResampler as SincResampler
from pipecat_twilio.frames import MarkFrame as MarkFrame
from pipecat_twilio.installer import install as install
from pipecat_twilio.installer import uninstall as uninstall
from pipecat_twilio.serializer import TwilioFrameSerializer as TwilioFrameSerializer
from pipecat_twilio.stream_resampler import SincStreamResampler as SincStreamResampler
from pipecat_twilio.transport import TwilioTransport as TwilioTransport
from pipecat_twilio.twilio import messages as messages
from pipecat_twilio.twilio.signature import is_valid_signature as is_valid_signature

__version__: str
