"""The REST API under `/api/v1`. See docs/api.md."""
