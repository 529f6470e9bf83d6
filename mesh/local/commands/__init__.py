"""The commands of ``amarre`` that run or inspect the local mesh."""
