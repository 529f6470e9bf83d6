"""Records: storage, export, import, deletion, documents and the audit log."""
