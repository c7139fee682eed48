"""The reference pages of docs/, made from the code: `python -m service.reference` writes them."""
