"""Tests over real sockets and with real processes: what users and attackers meet."""
