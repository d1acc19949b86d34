"""gRPC calls over one HTTP/2 connection on any trio stream, as server and as client.

One task reads the stream and one writes it; handlers and callers only ever touch queues. The protocol itself is in
`mobysession.protocol.connection`, which waits for nothing.
"""

import logging

# Whoever wants to hear of it configures logging; without that a library keeps quiet, also about its warnings.
logging.getLogger("mobysession").addHandler(logging.NullHandler())
