"""What napari calls: reader, writer, sample data; and how a stack becomes a layer and back."""
