"""The drop-in that gives ``twistd`` its ``wherry`` command."""

from twisted.application.service import ServiceMaker

wherry = ServiceMaker("Wherry", "node.tap", "A desktop peer node.", "wherry")
