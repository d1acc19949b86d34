"""``make bench-files``: sending trees, to the engine against ``docker buildx`` and to a receiver that discards it all."""
