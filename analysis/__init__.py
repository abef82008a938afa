"""Tables, figures and reports from the records of runs.

collect: records as one table. tables, table_text, table_figures: a table's numbers, as text and as figure. report: one
page about a folder of runs. figures: pictures of many runs. channels: what a score makes of a matrix's input channels.
series, uncertainty: which runs form a series, and how sure a number is. drawing, labels: what all figures share.
"""

__all__ = ["channels", "collect", "figures", "report", "series", "table_figures", "table_text", "tables", "uncertainty"]
