"""What every dock widget is made of: panel, layer picker, plot, long jobs, words and colours."""
