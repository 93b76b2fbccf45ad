"""A client that comes back: a new connection for each request, in the TLS session of the one before.

Neither wrk nor h2load resumes sessions; `openssl s_time` does, but looks at no status. This one is slow. That is no
matter to the figure that counts, the proxy's time for each request.
"""

import contextlib
import socket
import ssl
import threading
import time

import measure
from measure import Failed

# Below this the figure would be that of full handshakes, in part.
LEAST_RESUMED = 0.99


class Returning:
    """`workers` clients of one port, one connection at a time each. Their sessions last from run to run."""

    def __init__(self, port, path="/small", workers=8):
        self.port, self.path = port, path
        # A session belongs to the context it was made in.
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.context.check_hostname, self.context.verify_mode = False, ssl.CERT_NONE
        self.context.minimum_version = ssl.TLSVersion.TLSv1_3
        self.sessions = [None] * workers

    def run(self, seconds):
        """Requests for `seconds`. Returns requests, requests/s and the share of them that were in a resumed session.

        Raises Failed when one of them was not answered whole with 200."""
        counts, errors = [(0, 0)] * len(self.sessions), []
        began = time.monotonic()

        def work(worker):
            try:
                counts[worker] = self.work(worker, began + seconds)
            except (Failed, OSError) as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(worker,)) for worker in range(len(self.sessions))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        requests, resumed = map(sum, zip(*counts))
        if errors or not requests:
            raise Failed(f"{len(errors)} of {len(threads)} clients failed: {errors[0] if errors else 'no request'}")
        return {"requests": requests, "rate": requests / (time.monotonic() - began), "resumed": resumed / requests}

    def work(self, worker, until):
        requests = resumed = 0
        while time.monotonic() < until:
            was_resumed, self.sessions[worker] = self.request(self.sessions[worker])
            requests += 1
            resumed += was_resumed
        return requests, resumed

    def request(self, session):
        """One request on a connection of its own. Returns whether its session was resumed, and that for the next one."""
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=5)
        # As wrk does: otherwise the request waits for the acknowledgement of the handshake's end.
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.closing(plain), self.context.wrap_socket(plain, server_hostname="localhost", session=session) as tls:
            tls.sendall(f"GET {self.path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
            head, body = measure.read_answer(tls)
            if b" 200 " not in head.split(b"\r\n")[0] or not body:
                raise Failed(f"answered {head[:60]!r}")
            # Its tickets came before the answer. Each is used once, as RFC 8446 (C.4) asks of clients.
            return tls.session_reused, tls.session


def checked(figures):
    """The figures, if the sessions that were to be resumed were; else raises Failed."""
    if figures.get("resumed", 1.0) < LEAST_RESUMED:
        raise Failed(f"only {figures['resumed']:.1%} of the sessions were resumed")
    return figures
