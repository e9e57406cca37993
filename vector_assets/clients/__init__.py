"""Connection, auth and error translation that more than one role uses."""
