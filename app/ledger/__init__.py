"""What is kept: records of calls, and whatever else must survive a restart."""
