"""Sluice: an OpenAI-compatible proxy that opens the cheapest gate that still does the job."""

__version__ = "0.1.0"
