"""Statistics of faithfulness: areas between curves, intervals over seeds, differences between measures."""
