"""`migrate`: takes over the data of older backends."""
