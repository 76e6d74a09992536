"""One room for each group of commands; the work is done in other rooms."""
