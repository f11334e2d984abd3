"""Others' ways to do the same job, each a process of its own: what our figures stand beside."""
