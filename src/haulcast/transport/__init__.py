"""How clients reach haulcast: WebSocket and HTTP, typed at the edge, turned into the ports' calls."""
