"""Tests of the package broker."""
