"""Looks after NodeAgentConfig: says in its status what becomes of it."""
