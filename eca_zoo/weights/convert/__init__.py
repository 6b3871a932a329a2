"""Others' checkpoint files made into verified ones: reading, recognising, converting, publishing."""
