"""The confined process that unpacks one layer. Started as a script by `layers`; it uses the standard library only."""
