"""One wire's shapes to another's, pure: what is asked, what is answered, and the events of an answer."""
