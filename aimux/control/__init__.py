"""Everything outside the mounts: an aiohttp application."""
