"""The dashboard: the operator's pages, in a process of their own that asks the gateway over HTTP."""
