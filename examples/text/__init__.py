"""The parts of `train_text.py`: one idea each."""
