"""The LAN itself: the switch, and a port of it for each session."""
