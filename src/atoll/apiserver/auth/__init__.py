"""Who asks, and may they: client certificates, tokens, impersonation, RBAC and its bootstrap policy, access reviews."""
