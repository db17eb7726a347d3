"""A telephone in the browser, for bots that Twilio would call."""
