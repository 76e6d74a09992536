"""Where content lives on disk."""
