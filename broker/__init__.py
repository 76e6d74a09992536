"""Whom to call and how: merge, plan routes, race, connect, reconnect."""
