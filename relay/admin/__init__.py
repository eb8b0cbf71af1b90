"""What operators see and do while the relay runs: snapshots, the admin API, metrics, and their commands."""
