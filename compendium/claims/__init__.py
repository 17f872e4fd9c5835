"""What the papers print, what our runs recorded, and the verdicts that follow."""
