"""Tests of the package node."""
