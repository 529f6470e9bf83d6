"""The mesh: what the contracts say, what every process stands on, and what is compiled from both."""
