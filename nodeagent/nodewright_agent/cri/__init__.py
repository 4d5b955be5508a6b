"""The runtime half of the agent behind a CRI v1 socket: what ``nodewright cri`` runs."""
