"""The edge towards clients over TCP: HTTP and WebSockets."""
