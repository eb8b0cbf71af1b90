"""The edge towards the network, and what else is the machine's: sockets, descriptors, memory, signals."""
