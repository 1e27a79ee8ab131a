"""Package to live endpoint on Ray Serve: app, batching, router."""
