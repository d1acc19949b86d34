"""``make bench-files``: trees sent to an engine as by ``docker buildx``, and to a receiver that discards them."""
