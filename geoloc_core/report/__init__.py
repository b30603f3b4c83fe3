"""What people read: tables as data, drawn in Markdown, in HTML, for the terminal and as CSV."""
