"""What a process proves its identity with: certificates, private keys and other secrets."""
