"""Every bound, with its unit and where the number comes from."""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

# -- handshake ---------------------------------------------------------------------------------------------------------

#: Seconds to wait for a connection to be accepted. Our decision; docker's CLI waits 30 s for ssh, the system default
#: else.
CONNECT_TIMEOUT: Final = 30.0
#: Seconds to wait for the head of an HTTP/1.1 answer. Ours: a daemon answers the upgrade before it does anything else.
HANDSHAKE_TIMEOUT: Final = 20.0
#: Seconds to wait, after the 101, for the daemon's HTTP/2 SETTINGS. grpc-go gives up on our SETTINGS after 20 s.
READY_TIMEOUT: Final = 20.0
#: Bytes of an HTTP/1.1 head that we read before giving up; h11 and most servers use 16 KiB to 64 KiB.
MAX_HEAD: Final = 64 * KIB
#: Bytes of a proxy's answer to CONNECT, which is read byte by byte. Ours: real ones have some hundred.
MAX_PROXY_HEAD: Final = 4 * KIB
#: Bytes of a refusal's body that we read: the daemon's explanations are one line of JSON.
MAX_REFUSAL_BODY: Final = 64 * KIB

#: Seconds that the last words (a GOAWAY, queued answers) may take on a connection that is being closed.
GOODBYE_TIMEOUT: Final = 1.0

# -- gRPC over HTTP/2 --------------------------------------------------------------------------------------------------

#: Bytes of one gRPC message that we accept: what BuildKit accepts itself since 0.13.0 (16 MiB), plus its envelope.
MAX_MESSAGE: Final = 16 * MIB
#: Bytes of one header list that we accept: what Go's x/net/http2 server announces; `.dockerignore` arrives in headers.
MAX_HEADER_LIST: Final = 1_048_896
#: Bytes of a response's header list that we accept as a client: grpc-go's default, for error trailers with stack
#: traces.
MAX_RESPONSE_HEADER_LIST: Final = 16 * MIB
#: Streams that a peer may have open at once: what Go's x/net/http2 server announces.
MAX_CONCURRENT_STREAMS: Final = 250
#: Closed streams of which it is known how they were closed. Ours: more than a peer closes within a round trip.
MAX_CLOSED_STREAMS: Final = 4096
#: Bytes of a GOAWAY's debug data that we send. Ours: two or three lines of a log.
MAX_DEBUG_DATA: Final = 256
#: Largest frame we accept: the least that HTTP/2 allows, and what nghttp2 and grpc-go announce. A daemon's grpc-go
#: sends none that is larger, whatever is announced, and refusing the others by their head costs nothing.
MAX_FRAME: Final = 16 * KIB
#: Bytes per stream that a peer may send before the handler has taken any: 4 x 1 MiB, so that 100 ms of round trip still
#: allow 40 MB/s on one stream.
STREAM_WINDOW: Final = 4 * MIB
#: The same for a whole connection.
CONNECTION_WINDOW: Final = 16 * MIB
#: Parts in which a window is given back to the peer: each is a frame, and what is not yet a part is missing on a long
#: way. With halves, a peer that stops a few bytes short of the window gets only one of the two a round trip. grpc-go
#: has 4.
WINDOW_PARTS: Final = 8
#: Bytes of messages that no handler has taken, of all calls of a connection, above which the connection's window stays
#: shut. Ours: sixteen calls that nobody reads, each with a full window, and the others still go on.
MAX_UNREAD: Final = 64 * MIB
#: Bytes that a bulk stream may hand to the socket before other streams get their turn.
SLICE: Final = 64 * KIB
#: Bytes that a TCP socket holds which have not been sent, above which it takes no more (TCP_NOTSENT_LOWAT); Linux looks
#: before each piece of up to 32 KiB. trio sets 16 KiB, one frame, so that the writer wakes for each; with one slice it
#: costs a fifth less of the processor, and a small answer beside eight full streams comes no later (`make bench-rpc`).
#: A unix socket holds 208 KiB.
UNSENT: Final = 64 * KIB
#: Bytes handed to the socket in one go: what a small answer may have to wait for, besides the socket's own buffer.
WRITE_SIZE: Final = 128 * KIB
#: Bytes of the connection's send window that bulk streams leave to small answers.
WINDOW_RESERVE: Final = 16 * KIB
#: Turns of the loop that bulk leaves to the handler of a request that has just arrived. Ours: a health check needs two
#: or three.
ANSWER_TURNS: Final = 4
#: Answers up to this many bytes are small and overtake bulk data.
SMALL_ANSWER: Final = 4 * KIB
#: Bytes that one call may have queued for sending before its handler has to wait.
SEND_QUEUE: Final = 2 * MIB
#: Bytes that all calls of a connection may have queued before those with more than a small answer have to wait. Ours:
#: thirty-two whose peer never opens a window; without it 250 such calls would hold 500 MiB.
MAX_QUEUED: Final = 64 * MIB
#: Bytes of control frames (answers to PING and SETTINGS, resets) that may wait for a peer that does not read; over that
#: the connection is ended. Go's x/net/http2 server ends it over 10,000 such frames, or 256 KiB where they have 13 to
#: 26 bytes each. Four times that, because refusals, which have headers, count too.
MAX_PENDING_CONTROL: Final = 1 * MIB
#: Frames that carry no message on (PING, SETTINGS, PRIORITY, WINDOW_UPDATE, RST_STREAM, unknown ones; eight tiny DATA
#: frames count as one) beyond those that honest work makes good for; over that the connection is ended. Go's
#: x/net/http2 server ends it over as many control frames in its queue; nghttp2 allows as many "glitches" at once.
MAX_IDLE_FRAMES: Final = 10_000
#: Such frames per second that are forgiven: nghttp2's rate for glitches.
IDLE_FRAME_RATE: Final = 330.0
#: Calls that a peer may take back before they are answered, or lose by breaking their rules, beyond those that came to
#: their end; over that the connection is ended. nghttp2 allows as many resets at once; Go's x/net/http2 server four
#: times its concurrent streams, which is as many here.
MAX_EARLY_ENDS: Final = 1000
#: Such calls per second that are forgiven: nghttp2's rate for resets.
EARLY_END_RATE: Final = 33.0
#: Seconds that a call must have been open before a reset counts as that of its timeout. Ours: more than passes within
#: one read, so that no call with a timeout of nothing is opened and taken back for free.
TIMED_OUT: Final = 0.1
#: Frames of one header block that may be as small as they like, h2's own bound; those over it need 1 KiB each on
#: average. Blocks may also have no more than twice the bytes of their header list.
MAX_CONTINUATIONS: Final = 64
#: Entries of one SETTINGS frame: nghttp2's bound (CVE-2020-11080). HTTP/2 and gRPC have eight.
MAX_SETTINGS: Final = 32
#: Bytes of HPACK's table for what we send: its default. A peer may allow more, and would make us search through it.
HEADER_TABLE: Final = 4 * KIB
#: Bytes of the header lists of all open calls of a connection, counted as HTTP/2 does (RFC 9113 section 10.5.1); a call
#: over that is refused. Ours: sixteen of the largest, or 64 KiB for each call that may be open.
MAX_HEADERS_HELD: Final = 16 * MIB
#: Bytes of messages, of all calls of a connection, that have not arrived to their ends; a call over that is refused. As
#: `MAX_UNREAD`: a window that stays shut would never let them end.
MAX_INCOMPLETE: Final = 64 * MIB
#: Bytes of a ``grpc-message`` that we send, percent-encoded. Ours: with the rest of the trailers it stays below the
#: 16 KiB that grpc's C core refuses by default.
MAX_STATUS_MESSAGE: Final = 8 * KIB
#: Bytes of ``grpc-status-details-bin`` that we send, in base64. Ours: BuildKit's own, with stack traces, have some KiB,
#: and trailers that are over the peer's header list lose the status itself.
MAX_STATUS_DETAILS: Final = 32 * KIB
#: Bytes that the reader takes from the socket at once.
READ_SIZE: Final = 256 * KIB
#: Connections that one `serve_listener` has open at once. Ours: each may hold `MAX_UNREAD` in the worst case; half of
#: the 1,024 descriptors that a process may have by default.
MAX_CONNECTIONS: Final = 512
#: Connections that may wait in the kernel's queue of a unix listener; the kernel caps it at somaxconn. Ours.
ACCEPT_BACKLOG: Final = 1024
#: Seconds until the next attempt when no connection could be accepted, for want of descriptors or memory: as trio.
ACCEPT_PAUSE: Final = 0.1
#: Threads in which the plain functions of one grpcio servicer run at once. Ours: each long stream holds one.
SERVICER_THREADS: Final = 64
#: Bytes of answers by which such a thread may be ahead of what the connection has taken. Ours: four slices.
SERVICER_AHEAD: Final = 256 * KIB
#: The same in answers. Ours: enough that a thread and the loop do not wait for each other at every one.
SERVICER_AHEAD_MESSAGES: Final = 64
#: Seconds that such a function gets to return once its call is over; then its thread is left behind. Ours.
SERVICER_PATIENCE: Final = 1.0

# -- liveness ----------------------------------------------------------------------------------------------------------

#: Seconds of silence after which a session asks its daemon with a PING. Ours: a daemon checks a session's health every
#: 1 to 5 s, so that only one that says nothing any more is asked.
SESSION_KEEPALIVE: Final = 30.0
#: Seconds of silence after which a connection on which we call asks, while a call is open. grpc-go's server takes PINGs
#: less than 300 s apart for abuse.
CHANNEL_KEEPALIVE: Final = 310.0
#: Seconds of silence after which a listener asks whoever is connected. Ours: clients take any number of PINGs, and the
#: place of one that has vanished is free again soon.
LISTENER_KEEPALIVE: Final = 60.0
#: Seconds that the other side has to answer a PING, or to say anything else; grpc-go and gRPC's C core give as many.
KEEPALIVE_TIMEOUT: Final = 20.0
#: Seconds between two looks of the watchdog at its connection. Ours.
WATCHDOG_INTERVAL: Final = 1.0
#: Seconds that the event loop may stand still before it is told; one of twice that is always seen. Ours.
LOOP_LAG: Final = 1.0
#: Seconds for which a loop that stands still again is not told again. Ours.
LOOP_LAG_QUIET: Final = 60.0
#: Seconds that bytes may wait for a window, or for the socket, before it is told. Ours: twice what a daemon of today
#: gives a health check.
STALL: Final = 30.0
#: Seconds for which a connection tells of no further stall. Ours: the other side decides how many there are.
STALL_QUIET: Final = 60.0
#: Stalls that are told with their words; more than that are counted. Ours.
STALLS_NAMED: Final = 3
#: Frames of the other side, and times of reads, that a connection remembers. Ours, for diagnosis.
RECENT_FRAMES: Final = 64
#: Writes that a connection remembers, for the heads of their frames. Ours, for diagnosis: of an idle connection less
#: than 16 KiB, of one that is flooded 64 KiB.
RECENT_WRITES: Final = 16

# -- services ----------------------------------------------------------------------------------------------------------

#: Bytes of one secret (moby/buildkit session/secrets/secretsprovider: 500 KB = 500 x 1024).
MAX_SECRET: Final = 500 * KIB
#: Seconds that a command which prints a secret may take. Ours, as for a credential helper: it may ask for a touch.
SECRET_COMMAND_TIMEOUT: Final = 30.0
#: Bytes of an ignore file that are read. Ours: as patterns they would arrive in headers, which have 1 MiB together.
MAX_IGNORE_FILE: Final = 1 * MIB
#: Bytes of a line of an ignore file, without its end. Engines read it with Go's bufio.Scanner: 64 KiB for both.
MAX_IGNORE_LINE: Final = 64 * KIB - 1
#: Bytes of file content in one DiffCopy DATA packet. Go sends 32 KiB; engines of all generations accept 1 MiB.
DATA_CHUNK: Final = 1 * MIB
#: Seconds that a credential helper may take; the engine itself gives up after 60 s.
CREDENTIAL_HELPER_TIMEOUT: Final = 30.0
#: Bytes of a credential helper's answer that are read. Ours: the longest cloud tokens have about 4 KiB.
CREDENTIAL_HELPER_OUTPUT: Final = 64 * KIB
#: Characters of a failed helper's own words that an error message repeats. Ours: two or three lines of a terminal.
CREDENTIAL_HELPER_WORDS: Final = 300
#: Bytes of one SSH agent message: what golang.org/x/crypto/ssh/agent takes.
MAX_AGENT_MESSAGE: Final = 16 * MIB
#: Bytes of one request to an SSH agent: what OpenSSH's own agent takes (openssh-portable ssh-agent.c, AGENT_MAX_LEN).
MAX_AGENT_REQUEST: Final = 256 * KIB
#: Bytes of one private key file (moby/buildkit session/sshforward/sshprovider).
MAX_KEY_FILE: Final = 100 * KIB
#: Seconds within which an SSH agent must accept a connection (the same source).
AGENT_CONNECT_TIMEOUT: Final = 2.0
#: Seconds within which an SSH agent must list its keys. Ours: an agent on a token may need a moment; one that needs
#: longer would hold up the build later.
AGENT_LIST_TIMEOUT: Final = 10.0
#: Connections to SSH agents that the steps of one session may have open at once; each costs a descriptor. Ours: far
#: more than a build has steps, and a tenth of what a process may open by default.
MAX_AGENT_CONNECTIONS: Final = 100
#: Bytes of one message of a forwarded agent connection (moby/buildkit session/sshforward/copy.go).
AGENT_CHUNK: Final = 32 * KIB
#: Builds of one call, and targets of one bake, that run at once, unless the caller says otherwise. Ours: each has two
#: connections and a walk, and engines run four steps a core at most anyway.
BUILDS_AT_ONCE: Final = 16
#: Seconds until a build whose engine went away is asked for again, doubled with each time up to the second number.
#: Ours: an engine that is restarted needs some, and one that is gone for longer needs somebody to look at it.
RETRY_WAIT: Final = 1.0
RETRY_WAIT_MOST: Final = 30.0
#: Entries of directories that builds of one call keep for each other. Ours: some 50 MB; what is beyond is listed anew.
SHARED_ENTRIES: Final = 200_000
#: Seconds for which credentials that were looked up are used again: 4 min 50 s (docker/buildx, configprovider.go), just
#: below the 5 minutes that the shortest-lived registry tokens last.
CREDENTIAL_CACHE: Final = 290.0
#: Hosts whose credentials are remembered at once. Ours: far more than a build asks for, a bound on what a peer names.
CREDENTIAL_CACHE_HOSTS: Final = 256
#: Seconds that one request for a registry's token may take. Ours: the engine gives up after 60 s, and there are three.
TOKEN_TIMEOUT: Final = 15.0
#: Seconds within which a registry, or its realm, must be reached for that. Ours: where it cannot be reached from here,
#: as behind an engine far away, the engine is to fetch the token, and should not have to wait long to hear so.
TOKEN_CONNECT_TIMEOUT: Final = 5.0
#: Seconds that a token is believed to live at most. Ours: a year; the field is a number of any size.
TOKEN_LIFETIME: Final = 366 * 24 * 3600
#: Seconds that one request for a manifest may take, and bytes that one may have. Ours, and the bound of registries
#: (distribution/distribution, 4 MiB).
REGISTRY_TIMEOUT: Final = 60.0
MANIFEST_SIZE: Final = 4 * MIB
#: Seconds to wait for another docker client to let go of the seeds. Ours: each holds them for a millisecond.
SEED_LOCK_TIMEOUT: Final = 2.0
#: Bytes of an answer with a token, or with a challenge. Ours: the largest tokens have some ten KiB.
TOKEN_ANSWER: Final = 1 * MIB
#: Requests of one token, redirects on the same host included. Ours.
TOKEN_REDIRECTS: Final = 5
#: Secret values that are hidden at once. Ours: far more than a build has, and a bound on sessions that rotate tokens.
REDACTED_VALUES: Final = 256
#: Seconds that a remote command (ssh) gets to end after its stream was closed, before it is killed.
COMMAND_EXIT_TIMEOUT: Final = 3.0
#: Bytes of a remote command's stderr that are kept for the error message.
COMMAND_STDERR: Final = 4 * KIB
#: Times that a buildkitd which was started in a container is asked whether it answers (docker/buildx
#: driver/docker-container/driver.go).
BOOT_ATTEMPTS: Final = 15
#: Seconds until the second time; each pause is so much longer than the one before it (the same source): 14 s together.
BOOT_PAUSE: Final = 0.12
#: Seconds that an engine which is pulling an image may say nothing. Ours: it tells of each layer as it comes.
PULL_SILENCE: Final = 120.0
#: Bytes that were written to a remote command before it said anything, kept to be said again by another way. Ours:
#: requests to an engine have some KiB, and a context is not sent before the engine has answered.
REMOTE_REPLAY: Final = 256 * KIB

# -- outputs -----------------------------------------------------------------------------------------------------------

#: Entries of one received tree. Ours: ten times the largest node_modules seen; each costs some ten bytes until the end.
MAX_RECEIVED_ENTRIES: Final = 4_000_000
#: Bytes of the announcements of one received tree, names and attributes. Ours: 250 bytes for each of those entries.
MAX_RECEIVED_LISTING: Final = 1000 * MIB
#: Bytes of one received path below the root: Linux' PATH_MAX, over which no other program could open what was made.
MAX_RECEIVED_PATH: Final = 4096
#: Files that may arrive interleaved. Go's sender sends four at a time; each costs a descriptor.
MAX_RECEIVED_OPEN: Final = 64
#: Files that were asked for and have not arrived. Ours: as requests 200 KiB, a tenth of what a call may queue, so that
#: asking never waits; with files of 2 KiB, 32 MiB on the way.
MAX_ASKED_FILES: Final = 16_384
#: Bytes of one message of an upload: what BuildKit's own provider sends (3 MiB, below gRPC's default of 4 MiB).
UPLOAD_CHUNK: Final = 3 * MIB

# -- content stores ----------------------------------------------------------------------------------------------------

#: Bytes of one message of a blob that is read: what containerd's own server sends.
CONTENT_CHUNK: Final = 1 * MIB
#: Bytes of a blob that are read from the disk at once. Ours: enough that a trip to a thread costs nothing.
CONTENT_BATCH: Final = 4 * MIB
#: Bytes of a blob from which on they are hashed in a thread while the next ones come. Ours: less is hashed in the time
#: that the thread takes to start.
CONTENT_HASHED_LATER: Final = 64 * KIB
#: Blobs in one message of a listing: what containerd's own server sends.
CONTENT_LISTING: Final = 100
#: Bytes of the name of a blob that is written. Ours: BuildKit's have a digest and a word.
MAX_CONTENT_REF: Final = 4 * KIB
#: Bytes of an OCI layout's ``index.json`` that are read. Ours: ten thousand images.
MAX_LAYOUT_INDEX: Final = 4 * MIB

# -- what a build tells ------------------------------------------------------------------------------------------------

#: Bytes of one log line; a longer one is cut into several. Ours: what no reader reads to its end.
MAX_LOG_LINE: Final = 16 * KIB
#: Lines of its log that are kept for each step, for the error it may end in. Ours.
LOG_TAIL_LINES: Final = 50
#: Characters of the same; the oldest lines go first.
LOG_TAIL_SIZE: Final = 64 * KIB
#: Steps of one build that are followed. Ours: the largest known builds have some thousands.
MAX_VERTICES: Final = 50_000
#: Statuses (transfers, layers) that are followed for each step, times it may be started, and different warnings of a
#: build. Ours.
MAX_STATUSES: Final = 10_000
#: Lines of each step's log that a timeline keeps; the oldest go first. Ours: what one reads of a build that is over.
TIMELINE_LINES: Final = 2000
#: Characters of the same.
TIMELINE_LOG_SIZE: Final = 256 * KIB
#: Bytes of the logs of all steps together, about; who writes beyond it loses lines. Ours: what a browser reads at once.
TIMELINE_SIZE: Final = 32 * MIB
#: Callbacks that a timeline keeps; the oldest go first. Ours: builds have some tens.
TIMELINE_CALLS: Final = 10_000

# -- sessions ----------------------------------------------------------------------------------------------------------

#: Seconds that an approval of a request may take. Ours: engines give up on some requests after 60 s.
APPROVAL_TIMEOUT: Final = 50.0
#: Calls with a local failure that a session remembers, to explain a build that failed because of one.
KEPT_FAILURES: Final = 32
#: Bytes of one message of a session that is tunnelled (moby/buildkit session/grpchijack: what Go's http2 reads at
#: once).
TUNNEL_CHUNK: Final = 32 * KIB
#: Bytes of such a session that may wait in the connection which carries it before its writer has to. Ours: a small
#: answer stands behind as many, and the writer writes as many at once.
TUNNEL_AHEAD: Final = WRITE_SIZE
#: Spans of a session that are kept until they are handed to the engine. Ours: some MiB; a large build makes a thousand
#: calls.
KEPT_SPANS: Final = 4096
#: Seconds that an engine may take to accept spans. Ours: a build is over then, and somebody waits for its result;
#: moby/buildkit's history waits three for them.
TRACE_HANDOVER: Final = 3.0
#: Seconds that an exporter of OpenTelemetry may take at the end of a build. Ours, for the same reason.
TRACE_FLUSH: Final = 5.0
#: Endpoints of which a process remembers by which way a session was attached; hosts of ssh that have no docker CLI,
#: and containers that have answered. Ours.
REMEMBERED_ENDPOINTS: Final = 64
#: Seconds that a lost session waits to hear whether the build's control connection goes too. Ours: where a daemon dies,
#: its sockets close within milliseconds of each other.
BOTH_LOST: Final = 0.05

#: Seconds for which an ID is asked for again that the daemon says it still has: engines let go of a lost session with
#: its next health check, seen after 0.7 s (20.10) to 4.8 s (26, 28), and within 10 s where that check has to time out.
RESUME_PATIENCE: Final = 15.0
#: Seconds between two of these attempts. Ours: each costs the engine a connection.
RESUME_PAUSE: Final = 0.2
#: Seconds for which the end of a session waits for calls that are being answered. Ours: as long as docker waits for a
#: container that is to stop.
CLOSE_PATIENCE: Final = 10.0
#: Events that a subscriber may be behind before it misses some. Ours: a second of a busy build's.
EVENTS_BEHIND: Final = 1024
#: Seconds that a function which keeps a snapshot may take. Ours: a run is over then, and a block may be about to end.
PERSIST_TIMEOUT: Final = 5.0
#: Sessions of which it is remembered how to go on with them, once they were lost with their process. Ours.
KEPT_SNAPSHOTS: Final = 256
#: Generations of sessions that spawn sessions: the one that was created is the first. Ours.
MAX_SPAWN_DEPTH: Final = 10
#: Requests that may be queued on one session. Ours.
MAX_QUEUED_REQUESTS: Final = 10_000
#: Results of which the outputs are told by an inspection. Ours.
KEPT_OUTPUTS: Final = 16

# -- recordings --------------------------------------------------------------------------------------------------------

#: Bytes of a recording that are kept in memory; what comes before goes into a temporary file. Ours.
RECORDING_MEMORY: Final = 8 * MIB
#: Bytes that may wait for that file before messages lose their bodies, because a disk is slower than a session. Ours.
RECORDING_BEHIND: Final = 256 * MIB
#: Bytes of one line of a recording: the largest message in base64, which takes four thirds, and what stands around it.
MAX_RECORDING_LINE: Final = 2 * MAX_MESSAGE + MIB
#: Seconds for which a replay waits for an answer that a recording has and that does not come. Ours.
REPLAY_PATIENCE: Final = 10.0

# -- the doctor --------------------------------------------------------------------------------------------------------

#: Seconds within which a daemon should have asked for a session's health. BuildKit asks after one second or after five.
DOCTOR_HEALTH: Final = 12.0
#: Seconds by which the clocks of client and engine may differ unmentioned. Ours: what registries forgive for tokens
#: that live for a minute.
CLOCK_SKEW: Final = 5.0
#: Seconds by which they differ too much. Ours: tokens of five minutes, as most registries give, are over or not yet
#: valid.
CLOCK_WRONG: Final = 300.0

# -- builds ------------------------------------------------------------------------------------------------------------

#: Seconds without a status message, after the solve has ended, until its progress counts as told; moby/buildkit's
#: client waits as long.
STATUS_SILENCE: Final = 5.0
#: Seconds for a first status message, after a solve has failed of which nothing was heard. Engines refuse some solves
#: before there is a job whose status could be told, and let the question for it wait for a job that will not come.
#: Ours: what is on its way is here in a round trip, and buildx takes 3 s for the same.
STATUS_AFTER_REFUSAL: Final = 1.0
#: Bytes of one line of the classic build's answer: base64 of a status message, which gRPC would bound by 16 MiB.
MAX_TRACE_LINE: Final = 32 * MIB
#: Bytes of a Dockerfile that comes from stdin. Ours: what a mistaken tar exceeds; the largest generated ones have some
#: hundred KiB.
MAX_DOCKERFILE: Final = 8 * MIB
#: Characters of a build's output that `mobysession.dockerpy` keeps for a program that does not read. Ours.
MAX_UNREAD_OUTPUT: Final = 64 * MIB
#: Records of builds that are listed unless more are asked for; as docker/buildx lists.
HISTORY_RECORDS: Final = 50
#: Bytes of one file of a record that is exported. Ours: logs and traces of large builds have some MiB.
MAX_HISTORY_BLOB: Final = 256 * MIB

# -- what is remembered ------------------------------------------------------------------------------------------------

#: Seconds between two looks at whether another process has changed the store. Ours: soon for a person, and a look takes
#: some 0.1 ms.
STATE_WATCH: Final = 0.25
#: Seconds that a write waits for another process to let go of the store. Ours: each holds it for milliseconds.
STATE_BUSY: Final = 10.0
#: Bytes of one value of a state, as JSON. Ours: it is for settings and references, not for contents.
MAX_STATE_VALUE: Final = 1 * MIB
#: Seconds within which another use of the active daemon is not written down again. Ours.
ACCESS_GRAIN: Final = 60.0
#: Seconds for which messages of an inbox are kept after they were processed, to be looked at. Ours: a week.
INBOX_KEPT: Final = 7 * 24 * 3600.0
#: Bytes of one message of an inbox, as JSON. Ours: as a value of a state.
MAX_INBOX_MESSAGE: Final = 1 * MIB
#: Seconds that a key ring, which may ask to be unlocked, may take. Ours, as for a credential helper.
KEYRING_TIMEOUT: Final = 30.0
#: Bytes of a passphrase or token that is kept for a daemon. Ours: the longest tokens have some 4 KiB.
MAX_PASSWORD: Final = 16 * KIB
#: Bytes of the path of a socket: Linux' sun_path has 108, others 104, with the NUL.
MAX_SOCKET_PATH: Final = 103
#: Seconds that another process may take to answer about a session of its own. Ours: it is on this machine.
LOCAL_TIMEOUT: Final = 5.0
#: Events of a session that wait for one who watches it from another process; those over it are counted. Ours.
WATCHED_EVENTS: Final = 1024

# -- what a build is told and tells besides ----------------------------------------------------------------------------

#: Bytes of one of git's own files that are read to find the commit of a context. Ours: some 200,000 packed refs.
MAX_GIT_FILE: Final = 16 * MIB
#: Bytes of a provenance that is read from an engine's history. Ours: a thousand steps need less than one MiB.
MAX_PROVENANCE: Final = 64 * MIB

# -- bake --------------------------------------------------------------------------------------------------------------

#: Bytes of one bake or compose file. Ours: ten thousand targets need less.
MAX_BAKE_FILE: Final = 4 * MIB
#: Targets of one definition, those of a matrix counted. Ours: more are an error in a matrix.
MAX_BAKE_TARGETS: Final = 4096
#: Values that the expressions of a definition may make, and nodes of a compose file with its aliases followed. Ours.
MAX_BAKE_VALUES: Final = 1_000_000
#: Seconds that a regular expression of a definition may search in one text. Ours: a sane one takes milliseconds.
BAKE_REGEX_TIME: Final = 1.0
#: Depth of calls and of nested values in expressions. Ours: Python's own stack ends at some thousand frames.
MAX_BAKE_DEPTH: Final = 200
