"""A client of HTTP/2 that misbehaves: `misbehave.py CASE PORT` does so, and prints what came of it as JSON.

Frames, compression and the state machine are those of the `h2` package (python-hyper), an implementation that shares nothing
with the one under test. As long as the client keeps to the protocol itself, all that the proxy sends is judged by that
state machine, too.
"""

import json
import socket
import sys
import time

import hpack
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import (ContinuationFrame, DataFrame, Frame, GoAwayFrame, HeadersFrame, PingFrame, RstStreamFrame,
                              WindowUpdateFrame)

# For what no promise bounds.
PATIENCE_S = 20.0
LARGEST_WINDOW = 2**31 - 1


class Client:
    """A connection. `takes`: it opens windows for what it has received. `settings`: other than the usual ones."""

    def __init__(self, port, takes=True, settings=None):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Wrong heads are sent as they are written here.
        self.h2 = H2Connection(H2Configuration(header_encoding="utf-8", validate_outbound_headers=False,
                                               normalize_outbound_headers=False))
        if settings:
            self.h2.local_settings = Settings(client=True, initial_values=settings)
        self.takes = takes
        self.judges, self.judgement = True, None
        self.unparsed = b""
        self.ended = False
        self.goaway, self.resets, self.pongs = None, {}, set()
        self.statuses, self.bodies, self.whole = {}, {}, set()
        self.h2.initiate_connection()
        self.flush()
        self.until(lambda: self.h2.remote_settings.max_header_list_size)

    def flush(self):
        data = self.h2.data_to_send()
        if data:
            self.socket.sendall(data)

    def send(self, *frames):
        """Frames past the state machine, which does not know from here on what it should."""
        self.judges = False
        self.socket.sendall(b"".join(frame.serialize() for frame in frames))

    def request(self, path, method="GET", fields=(), end=True):
        """The number of its stream."""
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, head(path, method, fields), end_stream=end)
        self.flush()
        return stream

    def read(self, within_s):
        """What comes next within that time. Whether the connection has not ended."""
        if self.ended:
            return False
        self.socket.settimeout(within_s)
        try:
            data = self.socket.recv(65536)
        except (TimeoutError, BlockingIOError):
            return True
        except OSError:
            data = b""
        finally:
            self.socket.settimeout(PATIENCE_S)
        self.ended = not data
        self.note(data)
        if self.judges:
            try:
                self.judge(data)
            except ProtocolError as error:
                self.judgement, self.judges = f"{type(error).__name__}: {error}", False
        self.judges = self.judges and self.goaway is None
        return not self.ended

    def note(self, data):
        """Ends of streams and of the connection, whatever the state machine makes of them."""
        self.unparsed += data
        while len(self.unparsed) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(self.unparsed[:9]))
            if len(self.unparsed) < 9 + length:
                return
            frame.parse_body(memoryview(self.unparsed[9:9 + length]))
            self.unparsed = self.unparsed[9 + length:]
            if isinstance(frame, GoAwayFrame) and (self.goaway is None or frame.error_code):
                self.goaway = frame.error_code
            elif isinstance(frame, RstStreamFrame):
                self.resets[frame.stream_id] = frame.error_code
            elif isinstance(frame, PingFrame) and "ACK" in frame.flags:
                self.pongs.add(frame.opaque_data)

    def judge(self, data):
        for event in self.h2.receive_data(data):
            if isinstance(event, ResponseReceived):
                self.statuses[event.stream_id] = int(dict(event.headers)[":status"])
            elif isinstance(event, StreamEnded):
                self.whole.add(event.stream_id)
            elif isinstance(event, DataReceived):
                self.bodies[event.stream_id] = self.bodies.get(event.stream_id, b"") + event.data
                if self.takes and event.flow_controlled_length:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        try:
            self.flush()
        except OSError:
            # Its end comes with the next read.
            pass

    def until(self, holds, within_s=PATIENCE_S):
        """Reads until that holds or the connection ends. Whether it holds."""
        deadline = time.monotonic() + within_s
        while not holds() and time.monotonic() < deadline and self.read(0.05):
            pass
        return bool(holds())

    def lives(self):
        """Whether the connection still answers a ping."""
        payload = b"are you?"
        try:
            self.socket.sendall(PingFrame(0, payload).serialize())
        except OSError:
            return False
        return self.until(lambda: payload in self.pongs)

    def is_settled(self):
        """Each stream that was begun has an answer or a reset."""
        begun = range(1, self.h2.highest_outbound_stream_id + 1, 2)
        return self.goaway is None and all(stream in self.whole or stream in self.resets for stream in begun)

    def settled(self):
        """Reads until it is settled, or the connection has ended."""
        self.until(self.is_settled)
        return self.outcome()

    def broken(self):
        """Reads until the connection has ended."""
        self.until(lambda: self.ended)
        return self.outcome()

    def outcome(self):
        return {"ended": self.ended, "goaway": self.goaway, "resets": {str(s): code for s, code in self.resets.items()},
                "statuses": {str(s): status for s, status in self.statuses.items()}, "judgement": self.judgement}

    def flood(self, piece, most):
        """Sends `piece(n)`, which flushes, again and again, until the connection ends. How many it took."""
        for sent in range(most):
            try:
                piece(sent)
            except (OSError, ProtocolError):
                return sent
            if sent % 20 == 0 and (not self.read(0) or self.goaway is not None):
                return sent
        return most


def head(path, method="GET", fields=()):
    return [(":method", method), (":scheme", "http"), (":authority", "shop.example"), (":path", path), *fields]


def get(port, path="/"):
    """One request by a client that does nothing wrong: its status and body."""
    client = Client(port)
    stream = client.request(path)
    client.settled()
    return client.statuses.get(stream), client.bodies.get(stream, b"")


def served(port):
    """The status that the next client gets."""
    return get(port)[0]


# Cases. Each returns what is told beside the outcome, its client first.

def polite(port):
    """Nothing wrong at all: what the other cases are measured by."""
    client = Client(port)
    many = [client.request("/") for _ in range(client.h2.remote_settings.max_concurrent_streams - 1)]
    body = b"x" * 300_000
    upload = client.request("/echo", "POST", end=False)
    sent = 0
    while sent < len(body) and not client.ended:
        room = min(client.h2.local_flow_control_window(upload), client.h2.max_outbound_frame_size, len(body) - sent)
        client.h2.send_data(upload, body[sent:sent + room])
        client.flush()
        sent += room
        if not room:
            client.read(PATIENCE_S)
    client.h2.send_headers(upload, [("x-sum", "1")], end_stream=True)
    client.h2.ping(b"12345678")
    client.flush()
    outcome = client.settled()
    right = all(client.bodies[stream] == b"v1" for stream in many) and client.bodies[upload] == body
    return outcome, {"right": right}


def rapid_reset(port):
    client = Client(port)

    def piece(_):
        stream = client.h2.get_next_available_stream_id()
        client.h2.send_headers(stream, head("/"), end_stream=True)
        client.h2.reset_stream(stream, 8)
        client.flush()
    return flooded(client, piece, 20_000)


def continuation_flood(port):
    client, encoder = Client(port), hpack.Encoder()
    client.send(HeadersFrame(1, encoder.encode(head("/")), flags=["END_STREAM"]))
    more = ContinuationFrame(1, encoder.encode([("x-more", "x" * 1000)]))
    return flooded(client, lambda _: client.send(more), 100_000)


def endless_header_list(port):
    """Fields without end, each another and small, in frames as full as they may be."""
    client, encoder = Client(port), hpack.Encoder()
    client.send(HeadersFrame(1, encoder.encode(head("/")), flags=["END_STREAM"]))

    def piece(n):
        client.send(ContinuationFrame(1, encoder.encode([(f"x-{n}-{at}", "y") for at in range(1000)])))
    return flooded(client, piece, 10_000)


def settings_flood(port):
    client = Client(port)

    def piece(n):
        client.h2.update_settings({SettingCodes.ENABLE_PUSH: n % 2})
        client.flush()
    return flooded(client, piece, 200_000)


def ping_flood(port):
    client = Client(port)

    def piece(n):
        client.h2.ping(n.to_bytes(8, "big"))
        client.flush()
    return flooded(client, piece, 200_000)


def flooded(client, piece, most):
    all_sent = client.flood(piece, most) == most
    client.judges = False
    return client.broken(), {"all_sent": all_sent}


def hpack_bomb(port):
    """A field of 4 KB that is kept, and then named by a byte: a frame of 16 KiB means 60 MB."""
    client, encoder = Client(port), hpack.Encoder()
    block = encoder.encode(head("/") + [("x-bomb", "y" * 3900)]) + encoder.encode([("x-bomb", "y" * 3900)]) * 12_000
    client.h2.send_headers(1, head("/"), end_stream=True)
    client.h2.clear_outbound_data_buffer()
    client.socket.sendall(HeadersFrame(1, block, flags=["END_STREAM", "END_HEADERS"]).serialize())
    return client.settled(), {"frames": 1, "fits": len(block) <= 16_384}


def window_of_nothing(port):
    """Its windows stay shut: large answers may come, it says, and never takes a byte of them."""
    client = Client(port, settings={SettingCodes.INITIAL_WINDOW_SIZE: 0})
    streams = [client.request("/large") for _ in range(20)]
    client.until(lambda: len(client.statuses) == len(streams))
    meanwhile = served(port)
    return client.settled(), {"meanwhile": meanwhile, "streams": len(streams), "taken": len(client.bodies)}


def never_reads(port):
    """Its windows are wide, and it does not read from its socket."""
    client = Client(port, settings={SettingCodes.INITIAL_WINDOW_SIZE: LARGEST_WINDOW})
    client.h2.increment_flow_control_window(LARGEST_WINDOW - 65_535)
    client.judges = False
    streams = [client.request("/large") for _ in range(10)]
    meanwhile = served(port)
    deadline = time.monotonic() + PATIENCE_S
    # How many answers have begun, and how many of them the endpoint still tries to send.
    while get(port, "/sending")[1] != b"%d 0" % len(streams) and time.monotonic() < deadline:
        time.sleep(0.1)
    sending = get(port, "/sending")[1].decode()
    client.until(lambda: len(client.resets) == len(streams))
    return client.outcome(), {"meanwhile": meanwhile, "streams": len(streams), "sending": sending}


def window_beyond_all_of_the_connection(port):
    client = Client(port)
    client.send(WindowUpdateFrame(0, window_increment=LARGEST_WINDOW))
    return client.broken(), {}


def window_beyond_all_of_a_stream(port):
    client = Client(port)
    stream = client.request("/wait")
    client.send(WindowUpdateFrame(stream, window_increment=LARGEST_WINDOW))
    return client.settled(), {"lives": client.lives()}


def data_beyond_the_window(port):
    """The endpoint takes nothing, so nothing is given back of the window."""
    client = Client(port)
    stream = client.request("/wait", "POST", end=False)
    data = DataFrame(stream, b"x" * 16_384)
    return flooded(client, lambda _: client.send(data), 4_096)


def data_after_the_end(port):
    """On a stream that it has ended, and whose answer has not come."""
    client = Client(port)
    stream = client.request("/wait")
    client.send(DataFrame(stream, b"more"))
    return client.settled(), {}


def data_on_a_closed_stream(port):
    client = Client(port)
    stream = client.request("/")
    client.settled()
    client.send(DataFrame(stream, b"more", flags=["END_STREAM"]))
    return client.outcome(), {"lives": client.lives()}


def data_on_a_stream_that_was_never_begun(port):
    client = Client(port)
    client.send(DataFrame(7, b"more"))
    return client.broken(), {}


def streams_that_count_down(port):
    client, encoder = Client(port), hpack.Encoder()
    flags = ["END_STREAM", "END_HEADERS"]
    for stream in (5, 3):
        client.send(HeadersFrame(stream, encoder.encode(head("/wait")), flags=flags))
    return client.broken(), {}


def streams_of_the_server(port):
    client = Client(port)
    client.send(HeadersFrame(2, hpack.Encoder().encode(head("/")), flags=["END_STREAM", "END_HEADERS"]))
    return client.broken(), {}


def too_many_streams(port):
    """Twice as many at once as the proxy takes, and no answer before all are begun."""
    client = Client(port)
    most = client.h2.remote_settings.max_concurrent_streams
    # The library keeps to what the server says: it is told otherwise.
    client.h2.remote_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = 10_000
    client.h2.remote_settings.acknowledge()
    for _ in range(2 * most):
        client.request("/wait")
    client.until(lambda: len(client.resets) == most)
    get(port, "/release")
    return client.settled(), {"most": most}


def trailers_with(port, *fields):
    client = Client(port)
    stream = client.request("/echo", "POST", end=False)
    client.h2.send_data(stream, b"abc")
    client.h2.send_headers(stream, fields, end_stream=True)
    client.flush()
    return client.settled(), {"lives": client.lives()}


def trailers_with_a_path(port):
    return trailers_with(port, (":path", "/admin"), ("x-sum", "1"))


def trailers_with_a_path_behind_a_field(port):
    return trailers_with(port, ("x-sum", "1"), (":path", "/admin"))


def body_of_another_length(port, said, body):
    client = Client(port)
    stream = client.request("/echo", "POST", [("content-length", str(said))], end=False)
    client.h2.send_data(stream, body, end_stream=True)
    client.flush()
    return client.settled(), {"lives": client.lives()}


def body_shorter_than_said(port):
    return body_of_another_length(port, 5, b"abc")


def body_longer_than_said(port):
    return body_of_another_length(port, 3, b"abcGET /admin")


CASES = {case.__name__: case for case in (
    polite, rapid_reset, continuation_flood, endless_header_list, settings_flood, ping_flood, hpack_bomb, window_of_nothing,
    never_reads, window_beyond_all_of_the_connection, window_beyond_all_of_a_stream, data_beyond_the_window,
    data_after_the_end, data_on_a_closed_stream, data_on_a_stream_that_was_never_begun, streams_that_count_down,
    streams_of_the_server, too_many_streams, trailers_with_a_path,
    trailers_with_a_path_behind_a_field, body_shorter_than_said,
    body_longer_than_said)}


def main():
    case, port = sys.argv[1], int(sys.argv[2])
    outcome, more = CASES[case](port)
    print(json.dumps({**outcome, **more, "next": served(port)}))


if __name__ == "__main__":
    main()
