"""From records to a picture: curves, ACU and RACU, intervals, tables, plots and one page."""
