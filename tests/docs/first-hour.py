"""Traffic of a small server: `first-hour.py serve`, and `first-hour.py ask ADDRESS SECONDS` from the other side.

Five services with sizes of their own, over kept connections: a request is a line, a reply is as long as the server's dice say.
"""

import math
import random
import socket
import sys
import threading
import time

# Port, median and greatest length of replies in bytes, spread, connections, pause between requests in seconds.
SERVICES = [
    (22, 400, 3_000, 0.6, 2, 0.05),
    (443, 15_000, 120_000, 0.9, 6, 0.08),
    (5432, 1_500, 20_000, 0.9, 3, 0.03),
    (8080, 300_000, 2_000_000, 0.7, 3, 0.3),
    (873, 8_000_000, 30_000_000, 0.5, 1, 4.0),
]


def answer(connection, median, most, spread):
    with connection:
        while connection.recv(512):
            length = int(min(most, median * math.exp(random.gauss(0, spread))))
            connection.sendall(length.to_bytes(8, "big") + bytes(length))


def serve():
    for port, median, most, spread, *_ in SERVICES:
        listener = socket.create_server(("0.0.0.0", port))

        def accept(listener=listener, of=(median, most, spread)):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=answer, args=(connection, *of), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
    print("serves", flush=True)
    threading.Event().wait()


def ask(address, until, port, pause, local):
    while time.monotonic() < until:
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            connection.bind(("", local))
            connection.connect((address, port))
            # A connection is kept for a while, as browsers do; the named one for good.
            ends = until if local else min(until, time.monotonic() + 5)
            while time.monotonic() < ends:
                connection.sendall(b"x" * random.randint(60, 400))
                left = None
                while left is None or left > 0:
                    part = connection.recv(1 << 16)
                    if not part:
                        raise SystemExit("the server hung up")
                    if left is None:
                        left = int.from_bytes(part[:8], "big") + 8
                    left -= len(part)
                time.sleep(random.expovariate(1 / pause))


def main():
    if sys.argv[1] == "serve":
        serve()
        return
    until = time.monotonic() + float(sys.argv[3])
    for port, _, _, _, connections, pause in SERVICES:
        for number in range(connections):
            local = 50_000 if port == 443 and number == 0 else 0
            threading.Thread(target=ask, args=(sys.argv[2], until, port, pause, local)).start()


main()
