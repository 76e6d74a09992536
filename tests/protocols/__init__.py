"""Tests of the package protocols."""
