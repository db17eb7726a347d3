"""The codec and the resampler. They know neither Pipecat nor Twilio."""
