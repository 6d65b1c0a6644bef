"""Text as memory maps of token ids: words, vocabulary, and the store that holds them."""
