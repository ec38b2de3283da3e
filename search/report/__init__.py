"""What people look at: live progress, tables, plots and the written report."""
