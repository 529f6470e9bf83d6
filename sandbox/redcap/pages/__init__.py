"""Pages for people: surveys behind their links, and a look at what is stored."""
