"""The only reader of the environment."""

from app.settings.fields import ConfigError, Settings, mask_url, parse_chain, read_env_file
from app.settings.load import Live, load, shadowed

__all__ = ["ConfigError", "Live", "Settings", "load", "mask_url", "parse_chain", "read_env_file", "shadowed"]
