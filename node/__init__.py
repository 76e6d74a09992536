"""Composition: identity at rest, stores, services, control socket, CLI."""
