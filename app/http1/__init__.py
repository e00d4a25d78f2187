"""The server's side of HTTP/1.1: what uvicorn runs for each connection."""
