"""HTTP and WebSocket: what the studio shows to the network."""
