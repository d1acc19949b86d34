"""From the name of a daemon to a byte stream, and HTTP/1.1 on it.

``endpoint`` says where the daemon is, ``dial`` opens a stream to it, ``hijack`` turns a request into a stream of its
own, ``api`` asks the Engine API plain questions. A stream of this room is a ``trio.abc.Stream``; one that can be closed
in one direction alone is a ``trio.abc.HalfCloseableStream`` besides: over TLS there is no such thing.
"""
