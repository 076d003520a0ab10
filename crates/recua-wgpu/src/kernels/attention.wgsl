// attention: to come.
