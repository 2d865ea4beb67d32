"""`demo`: the main job on real data, with embedded servers, and an account of what came of it."""
