"""What people see: server-made pages in French and English, whole without scripts."""
