"""Methods that join features and train on the joint prediction alone."""
