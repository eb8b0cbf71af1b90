"""What carries messages between the processes of a relay."""
