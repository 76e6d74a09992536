"""YAML documents at rest: the override file and what it may say."""
