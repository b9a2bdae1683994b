"""The byte path between a client and an upstream."""
