"""The wires: one backend dialect a file; the only HTTP client code."""
