"""The node itself: its registration, its Lease, its status and conditions, and what it admits."""
