"""Many machines, on Ray: serving, archives and fits. Nothing of the service for one machine imports this."""
