"""What a call asks for: body, model, route."""
