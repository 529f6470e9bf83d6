"""Auth's SQL database: connections, tables and the stores built on them."""
