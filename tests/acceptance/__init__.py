"""Stories told to a real server over real sockets; each says which requirement it shows."""
