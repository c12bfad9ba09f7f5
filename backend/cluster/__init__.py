"""Many machines, on Ray: serving and archives. Nothing of the service for one machine imports this."""
