"""Run with: python -m twisted.trial tests."""
