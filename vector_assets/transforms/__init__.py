"""What happens to rows between decoder and sink."""
