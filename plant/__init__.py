"""What a factory means: the vocabulary and the pure functions that both the gateway and the centre use.

Nothing here does I/O, reads a clock or imports another package of the project. Standard library and numpy only.
"""
