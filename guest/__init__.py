"""The guests' side: a client of the relay in Python, and what makes a TAP device, QEMU or scapy a guest."""
