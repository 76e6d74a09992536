"""``python -m node`` is ``wherry``, wherever its script was installed."""

from node.cli import main

main()
