"""Several machines: a pooler, a replica, and several web and worker nodes."""
