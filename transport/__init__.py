"""Both edges of the relay: WebTransport sessions towards clients, host sockets towards the network."""
