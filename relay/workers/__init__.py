"""Several processes that are one relay on one machine: what one of them knows of the others."""
