"""What a report says of a model besides its score: how sure, where better and worse, and why."""
