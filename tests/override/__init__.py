"""Tests of the package override."""
