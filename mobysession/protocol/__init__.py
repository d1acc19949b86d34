"""The protocols without any waiting: bytes in, events out.

Nothing in this room knows about sockets, TLS or trio; whoever owns a byte stream feeds what it read to one of these
objects and writes what they hand back.
"""
