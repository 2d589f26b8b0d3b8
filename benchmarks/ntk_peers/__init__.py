"""The peers of the kernel benchmark: one module per environment, one worker process each."""
