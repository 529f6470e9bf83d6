"""Auth: signs researchers in by magic link, keeps their sessions and vouches for them."""
