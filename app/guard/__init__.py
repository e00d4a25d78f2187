"""Memory between calls: breakers, slots and limits. Synchronous, with an injected clock."""
