"""What is said on a wire, both ends of it: values, TLS, the HTTPS site."""
