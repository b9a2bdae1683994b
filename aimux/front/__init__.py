"""The listener and the connections it accepts."""
