"""What run folders show: comparisons, tables, figures, films, reports."""
