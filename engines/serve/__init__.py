"""An engine behind HTTP: the KServe v2 protocol, pictures, metrics and a page for people."""
