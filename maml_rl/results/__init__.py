"""Views of run folders: comparisons, tables, figures, films, reports."""
