"""What the admission webhook checks, one module per kind; `registry` has the table. See docs/admission.md."""
