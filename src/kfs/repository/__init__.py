"""What is wanted, what is there, and what is being served."""
