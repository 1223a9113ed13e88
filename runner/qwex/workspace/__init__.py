"""What is sent, how it is kept, and how results come back: rules, trees, blobs, copies, archives."""
