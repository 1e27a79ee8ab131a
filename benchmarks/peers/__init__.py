"""What we compare with, written the way its own documentation writes it. Each peer runs in a process of its own."""
