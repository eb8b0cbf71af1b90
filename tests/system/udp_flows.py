"""Many UDP sockets at once, each waiting for its own echo and nothing else. Runs inside a guest.

    python udp_flows.py NAME ADDRESS PORT FLOWS ROUNDS

prints, as JSON, how many datagrams were sent, came back right, and came to the wrong socket.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys

FIRST_PORT = 20_000
"""The same in every guest: what tells the flows of two guests apart must be the relay."""
PATIENCE = 10.0


def main():
    name, address, port, flows, rounds = sys.argv[1:]
    selector = selectors.DefaultSelector()
    sockets = []
    for number in range(int(flows)):
        flow = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        flow.bind(("", FIRST_PORT + number))
        selector.register(flow, selectors.EVENT_READ, number)
        sockets.append(flow)

    sent = right = wrong = 0
    for turn in range(int(rounds)):
        wanted = {number: f"{name} {number} {turn}".encode() for number in range(len(sockets))}
        for number, payload in wanted.items():
            sockets[number].sendto(payload, (address, int(port)))
            sent += 1
        while wanted and (ready := selector.select(PATIENCE)):
            for key, _ in ready:
                payload, sender = sockets[key.data].recvfrom(2048)
                if payload == wanted.pop(key.data, None) and sender == (address, int(port)):
                    right += 1
                else:
                    wrong += 1
    print(json.dumps({"sent": sent, "right": right, "wrong": wrong}))


if __name__ == "__main__":
    main()
