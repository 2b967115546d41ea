"""Nights: a suite run on labs again and again, stored, compared, published and told, whatever dies on the way."""
