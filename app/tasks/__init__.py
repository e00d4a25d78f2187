"""Running the prompt files: tasks with their contracts, lists worked through in parts, and pipelines of stages."""
