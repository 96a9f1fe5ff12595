"""The studio's HTTP and WebSocket server."""
