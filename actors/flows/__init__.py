"""Flows: NAT mappings and connections, one actor each, and how they share a line."""
