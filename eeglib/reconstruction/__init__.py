"""An image of what was seen, and how near it comes (chapter 7)."""
