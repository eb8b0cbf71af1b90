"""The edge towards clients over QUIC: endpoint, connections, WebTransport sessions, the datagram path."""
