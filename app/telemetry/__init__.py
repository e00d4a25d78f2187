"""Hooks that are fed one Record a call."""
