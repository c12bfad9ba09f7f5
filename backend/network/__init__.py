"""The frozen network: its weights, who runs it, and who has it when."""
