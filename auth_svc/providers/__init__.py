"""Identity providers: the embedded one and Appwrite."""
