"""``amarre`` commands that run or inspect the local mesh."""
