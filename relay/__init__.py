"""Assembly: settings, command line, wiring, logs, and the tools that come with the relay."""
