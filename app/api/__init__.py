"""The HTTP edge: parse, authenticate, respond. The only FastAPI code beside app.main."""
