"""The mesh: what contracts say, what processes stand on, what is compiled from both."""
