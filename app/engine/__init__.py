"""The engine: the process that owns the local MLX models and speaks OpenAI's HTTP on a socket of its own."""
