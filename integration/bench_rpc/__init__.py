"""``make bench-rpc``: the same calls to our server and to others, one machine, one run, in turns."""
