"""The process above the workers of a relay: it starts, watches and steers them, and speaks for them."""
