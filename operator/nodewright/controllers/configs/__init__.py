"""Looks after the configuration kinds, SchedulerProfile and NodeAgentConfig: says in their status whether they are
accepted.
"""
