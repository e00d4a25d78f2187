"""Is the cheaper model as good: shadow calls, their scores, and what follows from them."""
