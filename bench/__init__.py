"""What the gateway costs: load servers, the real daemon as a child process, one table. `python -m bench`."""
