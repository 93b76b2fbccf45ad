"""What must hold for a figure to be published: `python3 -m unittest discover -s loadtests`."""

import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import measure
import proxies
import report
import resume

REPORT = """Running 2s test @ http://127.0.0.1:9/small
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     0.88ms  112.04us   6.00ms   95.31%
    Req/Sec    70.03k     1.50k   72.01k    85.00%
  Latency Distribution
     50%  847.00us
     75%    0.91ms
     90%    0.97ms
     99%    2.14ms
  139388 requests in 2.00s, 158.04MB read
Requests/sec:  69694.21
Transfer/sec:     79.02MB
"""


REPORT_H2 = """starting benchmark...
TLS Protocol: TLSv1.3
finished in 2.00s, 41234.50 req/s, 43.10MB/s
requests: 82480 total, 83120 started, 82469 done, 82469 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 82471 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 86.20MB (90387000) total, 1.20MB (1258000) headers (space savings 95.00%), 80.54MB (84449000) data
"""


class ParseH2load(unittest.TestCase):
    def test_reads_figures(self):
        self.assertEqual(measure.parse_h2load(REPORT_H2), {"requests": 82469, "rate": 41234.5})

    def test_refuses_what_is_not_whole(self):
        for bad in (REPORT_H2.replace("0 failed", "3 failed"), REPORT_H2.replace("82471 2xx", "80000 2xx"), ""):
            with self.assertRaises(measure.Failed):
                measure.parse_h2load(bad)


class ParseWrk(unittest.TestCase):
    def test_reads_figures_in_microseconds(self):
        figures = measure.parse_wrk(REPORT)
        self.assertEqual(figures, {"requests": 139388, "rate": 69694.21, "p50_us": 847.0, "p99_us": 2140.0})

    def test_refuses_answers_that_were_not_2xx(self):
        with self.assertRaisesRegex(measure.Failed, "Non-2xx or 3xx responses: 7"):
            measure.parse_wrk(REPORT + "  Non-2xx or 3xx responses: 7\n")

    def test_refuses_broken_connections(self):
        with self.assertRaisesRegex(measure.Failed, "Socket errors: connect 0, read 3"):
            measure.parse_wrk(REPORT + "  Socket errors: connect 0, read 3, write 0, timeout 0\n")

    def test_refuses_a_report_without_figures_and_says_why(self):
        with self.assertRaisesRegex(measure.Failed, "unable to connect"):
            measure.parse_wrk("", "unable to connect to 127.0.0.1:9")


class Processes(unittest.TestCase):
    def test_cpu_time_covers_children_and_threads_of_the_tree(self):
        burn = "import os,time\nif os.fork()==0:\n while time.process_time()<0.5: pass\n time.sleep(9)\ntime.sleep(9)"
        process = subprocess.Popen([sys.executable, "-c", burn])
        try:
            until = threading.Event()
            for _ in range(100):
                pids = measure.process_tree(process.pid)
                if len(pids) == 2 and measure.cpu_seconds(pids) >= 0.5:
                    break
                until.wait(0.1)
            self.assertEqual(len(pids), 2)
            self.assertGreaterEqual(measure.cpu_seconds(pids), 0.5)
        finally:
            measure.stop(process)
        self.assertIsNone(measure.started_at(pids[1]), "a child outlived stop()")

    def test_a_process_that_ended_is_no_measurement(self):
        process = subprocess.Popen(["true"])
        process.wait()
        with self.assertRaises(measure.Failed):
            measure.cpu_seconds([process.pid])


class Idle(unittest.TestCase):
    def test_a_closed_connection_is_not_counted_as_open(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            clients = [socket.create_connection(server.getsockname(), timeout=5) for _ in range(2)]
            accepted = [server.accept()[0] for _ in clients]
            accepted[0].close()
            self.assertEqual(measure.still_open(clients), 1)
            measure.close_all(clients + accepted)


class TlsServer:
    """Answers each connection once: 200 with a byte, unless told otherwise. `tickets`: of sessions, for each handshake."""

    def __init__(self, tickets, answer=b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"):
        self.answer = answer
        self.directory = tempfile.TemporaryDirectory()
        site = proxies.Site(self.directory.name, 0, 0, (0, 0, 0, 0), 1, False, "https")
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(site.cert, site.key)
        self.context.num_tickets = tickets
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.requests = self.resumed = 0

    def __enter__(self):
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.listener.close()
        self.directory.cleanup()

    def serve(self):
        while True:
            try:
                plain, _ = self.listener.accept()
            except OSError:
                return
            with plain, self.context.wrap_socket(plain, server_side=True) as tls:
                self.requests += 1
                self.resumed += tls.session_reused
                tls.recv(65536)
                tls.sendall(self.answer)


@unittest.skipUnless(shutil.which("openssl"), "openssl makes the certificate")
class Resumption(unittest.TestCase):
    def test_every_connection_but_the_first_of_a_client_resumes_and_runs_go_on_where_the_last_ended(self):
        with TlsServer(tickets=2) as server:
            clients = resume.Returning(server.port, workers=2)
            first = clients.run(0.2)
            seen = server.requests
            self.assertEqual((first["requests"], first["resumed"]), (seen, (seen - 2) / seen))
            second = clients.run(0.2)
        self.assertEqual((second["requests"], second["resumed"]), (server.requests - seen, 1.0))
        self.assertEqual(server.resumed, server.requests - 2, "client and server count alike")
        self.assertIs(resume.checked(second), second)

    def test_without_tickets_the_measurement_is_void(self):
        with TlsServer(tickets=0) as server:
            figures = resume.Returning(server.port, workers=1).run(0.2)
        self.assertEqual((server.resumed, figures["resumed"]), (0, 0.0))
        with self.assertRaisesRegex(measure.Failed, "only 0.0% of the sessions"):
            resume.checked(figures)

    def test_an_answer_that_is_not_whole_or_not_200_voids_it(self):
        for answer in (b"HTTP/1.1 503 No\r\nContent-Length: 1\r\n\r\nx", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"):
            with TlsServer(tickets=2, answer=answer) as server, self.assertRaisesRegex(measure.Failed, "1 of 1 clients failed"):
                resume.Returning(server.port, workers=1).run(0.2)

    def test_nobody_who_listens_is_no_measurement(self):
        with self.assertRaises(measure.Failed):
            resume.Returning(measure.free_port()).run(0.2)

    def test_other_cases_have_nothing_to_resume(self):
        self.assertEqual(resume.checked({"requests": 1}), {"requests": 1})


class Tables(unittest.TestCase):
    def test_the_share_of_resumed_sessions_stands_where_there_is_one(self):
        results = [{"proxy": "haproxy", "case": "tls-resume", "round": 1, "cpu_us": 10.0, "resumed": 0.998}]
        text = report.load_table(results, ["haproxy", "rollgate"], "tls-resume")
        self.assertIn("| peak MiB | sessions resumed, % |", text)
        self.assertIn("| - | 99.8 |", text)
        self.assertNotIn("resumed", report.load_table([], ["haproxy"], "get"))

    def test_ratios_are_taken_within_a_round_and_missing_rounds_left_out(self):
        results = [{"proxy": "haproxy", "case": "get", "round": 1, "cpu_us": 10.0},
                   {"proxy": "haproxy", "case": "get", "round": 2, "cpu_us": 20.0},
                   {"proxy": "rollgate", "case": "get", "round": 1, "failed": "no program"},
                   {"proxy": "rollgate", "case": "get", "round": 2, "cpu_us": 18.0}]
        text = report.load_table(results, ["haproxy", "rollgate"], "get")
        self.assertIn("| rollgate | 18.0 | 0.90 |", text)
        self.assertIn("rollgate: no program [1 round(s)]", text)

    def test_spread_is_median_and_range(self):
        self.assertEqual(report.spread([3.0, 1.0, 2.0], 1), "2.0 (1.0 to 3.0)")
        self.assertEqual(report.spread([]), "-")


if __name__ == "__main__":
    unittest.main()
