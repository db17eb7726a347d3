"""Twilio: its messages, its REST API, its signatures. Nothing here knows Pipecat."""
