"""The tables, one topic a file, all on one MetaData; migrations create them."""

from __future__ import annotations

from sqlalchemy import MetaData

metadata = MetaData()
