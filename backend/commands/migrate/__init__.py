"""`migrate`: what older backends stored becomes this service's."""
