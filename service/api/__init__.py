"""HTTP: routes, the shapes of requests and replies, problem documents, keys. No arithmetic."""
