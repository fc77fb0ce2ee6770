"""Methods that join features and train on the result alone."""
